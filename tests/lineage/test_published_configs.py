"""Every published config is translated, passes our check, and its parts are built."""

import re

import pytest
import torch
from config_table import PAGE, essence, name_here, own_config, row
from published import NAMES, PUBLISHED

from openselfsup.engine.building import scaled_learning_rate
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.lineage.configs import load
from openselfsup.registry import ALGORITHMS, DATASETS, SCHEDULES
from openselfsup.shipped import shipped_config
from openselfsup.training.launch import Launch
from openselfsup.training.optimizers import build_optimizer

# What no repository can run either, and the sentence that says so.
BROKEN = {'concl/ablation/groupping_indice_f_1.py': 'cluster_indice=0 is output -5 of a backbone '
          r'that returns 3 \(out_indices=\[2, 3, 4\]\): .* expected 2, 3, 4',
          'concl/ablation/groupping_indice_f_2.py': 'cluster_indice=1 is output -4 of a backbone',
          'semi_classification/imagenet_1percent/base.py': "needs 'optimizer'",
          'semi_classification/imagenet_10percent/base.py': "needs 'optimizer'"}


def options(name: str) -> list[str]:
    """PLM_SSL's tiles lie in a folder of its authors, and CIFAR is another archive."""
    if '/cifar10/' in name:
        return ["dataset.source=dict(type='ImageList', root='data/NCT/data', "
                "list_file='data/NCT/meta/train_labeled.txt')"]
    return ['dataset.source.root=data/NCT/data'] if name.startswith('PLM_SSL') else []


def loaded(name: str, more: list[str] | None = None, processes: int | None = 1):
    """Load a config with tiles that are there."""
    return load(name, [*options(name), *(more or [])], processes)


def check_row(name: str, found) -> None:
    """The page has the row of a config; tests/lineage/config_table.py writes it."""
    assert row(name, found) in PAGE.read_text()


def broken(name: str) -> str | None:
    return next((words for end, words in BROKEN.items() if name.endswith(end)), None)


def test_all_of_them_are_there():
    assert {name: len(configs) for name, configs in PUBLISHED.items()} == {
        'PLM_SSL': 6, 'ConCL': 41, 'OpenSelfSup': 48}


@pytest.mark.parametrize('name', NAMES)
def test_a_published_config_is_translated(name, there):
    if words := broken(name):
        with pytest.raises(UserError, match=words) as refused:
            loaded(name)
        check_row(name, refused.value)
        return
    check_row(name, load(name))


# What differs from another one in its epochs or in one number.
ALIKE = re.compile(r'ep(100|400|800)|ablation/(concept|.*f_[35])|_lambda_|_head1(00)?\.|_10percent')


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow if ALIKE.search(name) else ())
    for name in NAMES if broken(name) is None])
def test_the_parts_of_a_published_config_are_built(name, there):
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


@pytest.mark.parametrize('name', [n for n in NAMES if shipped_config(name_here(n))])
def test_our_config_of_the_same_name_is_the_same(name, there):
    ours = essence(own_config(name))
    if broken(name) is None:
        found = loaded(name, processes=None)
        if any('nothing in the config says how many' in note.text for note in found.notes):
            found = loaded(name, processes=ours['batch'] // found.cfg.global_batch_size)
        theirs = essence(found.cfg)
        if name.endswith('concept_weight_05.py'):  # published with 0.3
            assert theirs['model'].pop('concept_weight') == 0.3
            assert ours['model'].pop('concept_weight') == 0.5
        assert ours == theirs


def runner_of(name: str, work_dir, *more: str) -> Runner:
    cfg = loaded(name, ['global_batch_size=4', 'accumulate=1', 'amp=off', 'workers=0', *more]).cfg
    return Runner(cfg, Launch(0, 1, torch.device('cpu')), work_dir)


def take_a_step(runner: Runner) -> None:
    first = next(value for name, value in runner.algorithm.backbone.named_parameters()
                 if name.endswith('conv1.weight'))
    before = first.detach().clone()
    runner.loader.set_position(0, 0)
    batches = iter(runner.loader)
    outputs = runner.step(batches, 1, lr=1e-2)
    batches.close()
    assert all(torch.isfinite(value).all() for value in outputs.values())
    assert first.requires_grad != before.equal(first)


def few(name: str) -> list[str]:
    """Return what eight tiles ask for: fewer clusters."""
    kind = loaded(name).cfg.model.type
    return (['model.head.num_classes=4'] * (kind in ('DeepCluster', 'ODC'))
            + ['model.min_cluster=1'] * (kind == 'ODC'))


def small(name: str) -> list[str]:
    """Return what makes a step a matter of a second."""
    cfg = loaded(name).cfg
    views = [''] if 'size' in cfg.dataset.recipe else [f'.{key}' for key in cfg.dataset.recipe]
    more = [f'dataset.recipe{key}.size=64' for key in views]
    if 'queue_len' in cfg.model:
        more.append('model.queue_len=16')
    if cfg.model.backbone.type == 'SobelBackbone':
        more += ['model.backbone.backbone.depth=18', 'model.head.in_channels=512']
    elif cfg.model.backbone.depth == 50:
        part = 'neck' if 'neck' in cfg.model else 'head'
        more += ['model.backbone.depth=18', f'model.{part}.in_channels=512']
    return more


# One of each method.
STEPS = [
    'PLM_SSL/configs/PLM_SSL/r18_bs256_ep200_lambda_0.75.py',
    'ConCL/configs/NCT_pretraining/concl/r18_bs256_ep200.py',
    'ConCL/configs/NCT_pretraining/densecl/r18_bs256_ep200.py',
    'ConCL/configs/NCT_pretraining/moco_v1/r18_bs256_ep400.py',
    'ConCL/configs/NCT_pretraining/simclr/r18_bs1024_ep200.py',
    'ConCL/configs/NCT_pretraining/byol/r18_bs1024_ep200.py',
    'ConCL/configs/NCT_pretraining/classification/r18.py',
    'OpenSelfSup/configs/selfsup/npid/r50.py',
    'OpenSelfSup/configs/selfsup/deepcluster/r50.py',
    'OpenSelfSup/configs/selfsup/odc/r50_v1.py',
    'OpenSelfSup/configs/selfsup/rotation_pred/r50.py',
    'OpenSelfSup/configs/selfsup/relative_loc/r50.py',
]


@pytest.mark.parametrize('name', STEPS)
def test_a_step_of_one_config_a_method(name, there, tmp_path):
    more = [*small(name), *few(name)]
    if '/concl/' in name:
        more.append('model.warmup_epochs=0')  # with concepts
    if '/relative_loc/' in name:
        more.append('dataset.recipe.size=96')  # has patches of 11 px
    take_a_step(runner_of(name, tmp_path, *more))


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in NAMES if broken(name) is None])
def test_a_step_of_every_config(name, there, tmp_path):
    take_a_step(runner_of(name, tmp_path, *few(name)))
