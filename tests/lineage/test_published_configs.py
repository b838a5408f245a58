"""Every published config is translated, passes our check, and its parts are built."""

import re

import pytest
import torch
from published import NAMES, PUBLISHED

from openselfsup.engine.building import scaled_learning_rate
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.lineage.configs import load
from openselfsup.registry import ALGORITHMS, DATASETS, SCHEDULES
from openselfsup.training.launch import Launch
from openselfsup.training.optimizers import build_optimizer

# What no repository can run either, and the sentence that says so.
BROKEN = {'semi_classification/imagenet_1percent/base.py': "needs 'optimizer'",
          'semi_classification/imagenet_10percent/base.py': "needs 'optimizer'"}


def options(name: str) -> list[str]:
    """PLM_SSL's tiles lie in a folder of its authors."""
    return ['dataset.source.root=data/NCT/data'] if name.startswith('PLM_SSL') else []


NOT_HERE = re.compile('no published method is called|no (neck|backbone|head|hook) (here )?is called'
                      "|takes no argument 'frozen_stages'|nothing is registered as")


def loaded(name: str, more: list[str] | None = None):
    """Load a config, or skip the test with the sentence that a user gets."""
    try:
        return load(name, [*options(name), *(more or [])], processes=1)
    except UserError as error:
        if NOT_HERE.search(str(error)):
            pytest.skip(str(error))
        raise


def broken(name: str) -> str | None:
    return next((words for end, words in BROKEN.items() if name.endswith(end)), None)


def test_all_of_them_are_there():
    assert {name: len(configs) for name, configs in PUBLISHED.items()} == {
        'PLM_SSL': 6, 'ConCL': 41, 'OpenSelfSup': 48}


@pytest.mark.parametrize('name', NAMES)
def test_a_published_config_builds(name, there):
    if words := broken(name):
        with pytest.raises(UserError, match=words):
            loaded(name)
        return
    cfg = loaded(name).cfg
    with torch.device('meta'):  # banks of a million rows, heads of ten thousand classes
        algorithm = ALGORITHMS.build(cfg.model)
    optimizer = build_optimizer(algorithm, cfg.optimizer, scaled_learning_rate(cfg))
    assert optimizer.param_groups[0]['lr'] == cfg.optimizer['lr'] > 0
    rates = SCHEDULES.build({**cfg.schedule, 'base_lr': cfg.optimizer['lr'], 'epochs': cfg.epochs,
                             'steps_per_epoch': 2})
    assert rates.shape == (2 * cfg.epochs,) and 0 <= rates.min() and (
        rates.max() <= cfg.optimizer['lr'])
    dataset = DATASETS.build(cfg.dataset)
    batch = dataset.batch([0], torch.Generator().manual_seed(0))
    assert [tuple(view.shape) for view in batch['views']] == [
        (1, 3, *recipe.size) for recipe in dataset.recipes]


def runner_of(name: str, work_dir, *more: str) -> Runner:
    cfg = loaded(name, ['global_batch_size=4', 'accumulate=1', 'amp=off', 'workers=0', *more]).cfg
    return Runner(cfg, Launch(0, 1, torch.device('cpu')), work_dir)


def take_a_step(runner: Runner) -> None:
    before = runner.algorithm.backbone.conv1.weight.detach().clone()
    runner.loader.set_position(0, 0)
    batches = iter(runner.loader)
    outputs = runner.step(batches, 1, lr=1e-2)
    batches.close()
    assert all(torch.isfinite(value).all() for value in outputs.values())
    frozen = not any(p.requires_grad for p in runner.algorithm.backbone.parameters())
    assert frozen or not before.equal(runner.algorithm.backbone.conv1.weight)


# One of each method, at small views; and what makes it small.
SMALL = ['dataset.recipe.size=64', 'model.queue_len=16']
STEPS = {
    'PLM_SSL/configs/PLM_SSL/r18_bs256_ep200_lambda_0.75.py': SMALL,
    'ConCL/configs/NCT_pretraining/densecl/r18_bs256_ep200.py': SMALL,
    'ConCL/configs/NCT_pretraining/moco_v1/r18_bs256_ep400.py': SMALL,
    'OpenSelfSup/configs/selfsup/npid/r50.py': ['dataset.recipe.size=64', 'model.backbone.depth=18',
                                                'model.neck.in_channels=512'],
}


@pytest.mark.parametrize('name', STEPS)
def test_a_step_of_one_config_a_method(name, there, tmp_path):
    take_a_step(runner_of(name, tmp_path, *STEPS[name]))


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in NAMES if broken(name) is None])
def test_a_step_of_every_config(name, there, tmp_path):
    take_a_step(runner_of(name, tmp_path))
