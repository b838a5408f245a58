"""Views of two sizes, through the loader and both renderers, into a method that compares them."""

import pytest
import torch
from small_runs import REPO

from openselfsup.cli.main import dispatch
from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.training.launch import Launch

CONFIG = str(REPO / 'configs/VICRegL/r18_bs512_ep100_multicrop.py')
OPTIONS = ['dataset.source={"type": "ImageFolder", "root": "data/demo/kather2016", "labels": True}',
           *(f'dataset.recipe.large{i}.size=64' for i in (1, 2)),
           *(f'dataset.recipe.small{i}.size=32' for i in (1, 2)),
           *(f'dataset.recipe.small{i}=None' for i in (3, 4, 5, 6)),
           *(f'model.{part}.channels=(32, 16)' for part in ('projector', 'maps_projector')),
           'model.backbone.out_indices=(3,)', 'model.projector.in_channels=256',
           'model.maps_projector.in_channels=256', 'model.num_classes=8', 'global_batch_size=8',
           'amp=off', 'log_interval=1', 'epochs=1']


@pytest.mark.parametrize('options', [['render=worker', 'workers=1'],
                                     ['render=device', 'workers=0']])
def test_a_step_of_large_and_small_views(options, tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    runner = Runner(load_config(CONFIG, [*OPTIONS, *options]),
                    Launch(0, 1, torch.device('cpu')), tmp_path)
    seen = []
    runner.algorithm.backbone.register_forward_hook(
        lambda _, inputs, maps: seen.append((inputs[0].shape[-1], tuple(maps[-1].shape))))
    runner.loader.set_position(0, 0)
    batches = iter(runner.loader)
    outputs = runner.step(batches, 1, lr=1e-3)
    batches.close()
    assert seen == [(64, (8, 256, 4, 4))] * 2 + [(32, (8, 256, 2, 2))] * 2
    assert {'loss_global', 'loss_local', 'loss_classifier', 'acc_classifier', 'matched_fraction',
            *(f'{level}_{term}' for level in ('global', 'local') for term in ('inv', 'var', 'cov'))
            } <= outputs.keys()
    assert all(value.isfinite() for value in outputs.values())


def test_browsing_shows_views_of_two_sizes(tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    dispatch(['browse', CONFIG, '--out', str(tmp_path / 'views'), '--n', '2', '--cfg-options',
              *OPTIONS])
    assert {path.name for path in (tmp_path / 'views').iterdir()} >= {'views_01.png',
                                                                      'matches_01.png'}


PLM = str(REPO / 'configs/demo/plm_r18.py')
OBLONG = """
_base_ = ['{base}']
CROP = dict(crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)))
dataset = dict(recipe=dict(_delete_=True, **{{name: dict(type='ViewRecipe', size=size, steps=CROP)
                                             for name, size in {sizes}.items()}}),
               n_views=None)
"""
SHORT = ['dataset.source.root=data/demo/kather2016', 'global_batch_size=16', 'model.queue_len=40',
         'epochs=1', 'log_interval=1', 'workers=0', 'schedule.warmup_epochs=0']


def plm_of(tmp_path, monkeypatch, **sizes):
    monkeypatch.chdir(REPO)
    config = tmp_path / 'oblong.py'
    config.write_text(OBLONG.format(base=PLM, sizes=sizes))
    return str(config)


def test_plm_trains_and_draws_views_of_two_shapes(tmp_path, monkeypatch):
    config = plm_of(tmp_path, monkeypatch, query=(64, 128), key=(96, 96))
    runner = Runner(load_config(config, SHORT), Launch(0, 1, torch.device('cpu')), tmp_path / 'run')
    assert runner.cells == [(2, 4), (3, 3)]
    runner.train()
    assert 0 < runner.record['mean_coverage'] < 1 and (tmp_path / 'run/matches.png').exists()
    dispatch(['browse', config, '--out', str(tmp_path / 'views'), '--n', '2', '--cfg-options',
              *SHORT])
    assert (tmp_path / 'views/matches_01.png').exists()


@pytest.mark.parametrize('names', ['query', 'query key other'])
def test_a_run_of_too_few_or_too_many_views_writes_nothing(names, tmp_path, monkeypatch):
    config = plm_of(tmp_path, monkeypatch, **{name: (64, 64) for name in names.split()})
    with pytest.raises(UserError, match='PLM takes 2 views of each tile, but the recipe makes '
                       f'{len(names.split())}; expected n_views=2, or 2 named views'):
        Runner(load_config(config, SHORT), Launch(0, 1, torch.device('cpu')), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
