"""What `openselfsup translate` prints, and that `openselfsup train` takes the file itself."""

import pytest

from openselfsup.cli.main import execute
from openselfsup.engine.config import load_config
from openselfsup.errors import UserError
from openselfsup.lineage.configs import load

PLM = 'PLM_SSL/configs/PLM_SSL/r18_bs256_ep200_lambda_1.0.py'
MOCO_V1 = 'ConCL/configs/NCT_pretraining/moco_v1/r18_bs256_ep200.py'


@pytest.mark.parametrize('name', [PLM, MOCO_V1])
def test_the_text_is_a_config_of_ours(name, there, tmp_path, capsys):
    execute('translate', [name, '-o', str(tmp_path / 'ours.py')])
    assert capsys.readouterr().out == f"{tmp_path / 'ours.py'}\n"
    assert load_config(tmp_path / 'ours.py').to_dict() == load(name).cfg.to_dict()
    with pytest.raises(UserError, match='this file is there already'):
        execute('translate', [name, '-o', str(tmp_path / 'ours.py')])


def comments_above(text: str, line: str) -> str:
    """Return the comments right above a line of a text."""
    lines = text.splitlines()
    end = start = next(i for i, found in enumerate(lines) if found.strip().startswith(line))
    while start and lines[start - 1].strip().startswith('#'):
        start -= 1
    return ' '.join(found.strip('# ') for found in lines[start:end])


def test_what_is_not_one_to_one_stands_at_its_line(there, capsys):
    execute('translate', [PLM, '--processes', '2'])
    text = capsys.readouterr().out
    assert "_base_: repaired: '../../base.py'" in text and 'cudnn_benchmark: ignored' in text
    assert 'constant within an epoch' in comments_above(text, 'schedule =')
    assert '64 tiles x 2 processes = 128' in comments_above(text, 'global_batch_size = 128')
    assert 'data.train.grid_size: ignored: 7' in comments_above(text, 'dataset =')
    assert 'float32, as published' in comments_above(text, "amp = 'off'")
    assert comments_above(text, 'epochs = 200') == ''
    assert max(len(line) for line in text.splitlines() if PLM not in line) <= 100


def test_other_commands_take_a_published_config_too(there, capsys):
    execute('print-config', [PLM, '--cfg-options', 'epochs=3'])
    text = capsys.readouterr().out
    assert "type='PLM'" in text and 'epochs = 3\n' in text and 'channels_last = True' in text


def test_a_config_of_ours_is_not_translated():
    with pytest.raises(UserError, match='not in the published dialect'):
        execute('translate', ['demo/plm_r18'])


def test_the_published_path_trains_the_published_file(there, tool):
    answer = tool(
        'tools/train.py', PLM, '--work_dir', 'run', '--seed', '0', '--dry-run', '--cfg-options',
        'dataset.source.root=data/NCT/data', 'epochs=1', 'dataset.recipe.size=64',
        'global_batch_size=4', 'model.queue_len=8', 'workers=0', cwd=there)
    assert answer.returncode == 0
    for words in ('published config, translated', '_base_: repaired', 'imgs_per_gpu: differs',
                  'one step: loss_contra_single', "type='PLM'"):
        assert words in answer.stdout
