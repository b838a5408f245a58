"""What stops a part as it is built is told with the part's key path."""

import subprocess
import sys

import pytest
from torch import nn

from openselfsup.engine.config import load_config
from openselfsup.engine.placing import placed
from openselfsup.errors import UserError
from openselfsup.registry import ALGORITHMS, HOOKS, NECKS, SCHEDULES

PROBE = 'dict(type="KNNProbeHook", source=dict(type="ImageFolder", root="nowhere"))'


class Refusing(nn.Module):
    """A neck that refuses a size when it is built."""

    def __init__(self, in_channels: int, size: int = 3, where: str | None = None):
        super().__init__()
        raise UserError(f'{size} is too small', where=where)


@pytest.fixture(autouse=True)
def registered():
    NECKS.register_module(module=Refusing)
    yield
    NECKS.module_dict.pop('Refusing')


def test_a_folder_that_is_not_there_is_told_with_the_source_of_the_config(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'demo/simclr_r18'\n"
                                      "dataset = dict(source=dict(root='nowhere'))\n")
    for words in (['train', 'mine.py', '--dry-run'], ['browse', 'mine.py']):
        done = subprocess.run([sys.executable, '-m', 'openselfsup', *words], cwd=tmp_path,
                              text=True, capture_output=True)
        assert done.returncode == 2
        assert 'error: dataset.source of mine.py: nowhere (from ' in done.stderr


@pytest.mark.parametrize('where, said', [
    ('size', '^model.neck of .*simclr_r18.py: size: 3 is too small$'),
    ('model.neck.size', '^model.neck.size: 3 is too small$')])
def test_a_part_that_a_method_adds_to_is_found(where, said):
    cfg = load_config('demo/simclr_r18', [f'model.neck=dict(type="Refusing", where="{where}")'])
    with pytest.raises(UserError, match=said), placed(cfg):
        ALGORITHMS.build(cfg.model)


def test_equal_parts_are_told_apart_by_which_one_is_built():
    cfg = load_config('demo/simclr_r18', [f'hooks=[{PROBE}, {PROBE}]'])
    with pytest.raises(UserError, match='^hooks.1.source of .*: nowhere'), placed(cfg):
        HOOKS.build(cfg.hooks[1])


def test_what_no_part_says_stays_as_it_is():
    cfg = load_config('demo/simclr_r18')
    with pytest.raises(UserError, match='^no schedule is called'), placed(cfg):
        SCHEDULES.build(dict(type='Nothing'))
    with pytest.raises(UserError, match='^a: b$'), placed(cfg):
        raise UserError('b', where='a')
