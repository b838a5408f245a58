"""PLM straight from slides: no tile on a disk, and a run that goes on bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from small_runs import DEMO, REPO, SMALL, assert_same_state

from benchmarks.speed.slide_files import demo_tissue, write_slide
from openselfsup.engine.config import load_config
from openselfsup.engine.hooks import Hook
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.training.launch import Launch


@pytest.fixture(scope='module')
def cohort(tmp_path_factory):
    """Slides of two magnifications, and one that cannot be used."""
    folder = tmp_path_factory.mktemp('cohort')
    image = demo_tissue(900, 700, 100)
    write_slide(folder / 'a.svs', image, 0.5, kind='svs')
    write_slide(folder / 'b.tif', image[:, ::-1], 0.25)
    write_slide(folder / 'untold.tif', image, None)
    return folder


@pytest.fixture
def make(cohort):
    """Build a run of two epochs of three steps."""
    def make_runner(work_dir, *options: str, config: Path = DEMO) -> Runner:
        source = dict(type='Slides', root=str(cohort), mpp=[0.5, 1.0], size=64,
                      tiles_per_epoch=48, masks=str(cohort / 'masks'), seed=5)
        small = [option for option in SMALL if not option.startswith(('dataset', 'model'))]
        cfg = load_config(config, [*small, f'dataset.source={source}',
                                 'dataset.recipe.size=32', *options])
        return Runner(cfg, Launch(0, 1, torch.device('cpu')), work_dir)
    return make_runner


class StopAfter(Hook):
    """Asks to stop after a number of steps."""

    def __init__(self, steps):
        self.steps = steps

    def after_step(self, runner, outputs):
        runner.stop_requested = runner.steps_done == self.steps


def test_plm_trains_from_slides_and_goes_on_as_if_it_had_not_been_stopped(make, tmp_path, capsys):
    through = make(tmp_path / 'through', 'workers=0')
    assert '1 of 3 slides cannot be used' in through.dataset.source.passed_over
    through.train()
    rows = [json.loads(line)
            for line in (tmp_path / 'through/metrics.jsonl').read_text().splitlines()]
    assert len(rows) == 6 and all(0 < row['matched_fraction'] <= 1 for row in rows)
    stopped = make(tmp_path / 'run')
    stopped.hooks.append(StopAfter(4))
    stopped.train()
    assert stopped.interrupted and stopped.steps_done < 6
    again = make(tmp_path / 'run')
    again.resume(tmp_path / 'run/latest.pth')
    assert 'was' not in capsys.readouterr().out.split('resumed')[-1]  # nothing has changed
    again.train()
    assert_same_state(tmp_path / 'through/epoch_2.pth', tmp_path / 'run/epoch_2.pth')


def test_a_method_that_remembers_its_tiles_is_refused(make, tmp_path):
    with pytest.raises(UserError, match='NPID remembers each tile.*new in every epoch'):
        make(tmp_path, 'model.neg_num=16', config=REPO / 'configs/NPID/r18_small.py')
