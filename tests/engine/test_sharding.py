"""Runs whose parameters ranks share out: the steps and the files of all others."""

import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_runs import DEMO, REPO

from openselfsup import load_backbone
from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.training.launch import Launch

TILES = 'data/demo/kather2016'
# 51 real tiles, 3 steps an epoch. What ranks draw for themselves (paths that are dropped) is off;
# eps keeps gradients of almost 0 from deciding about whole steps.
CONFIG = REPO / 'configs/DINOv2/vits16_scratch_plm.py'
RUN = [f'dataset.source.root={TILES}', 'global_batch_size=16', 'accumulate=2', 'epochs=2',
       'log_interval=1', 'workers=0', 'amp=off', 'checkpoint_interval=1', 'optimizer.eps=0.01',
       'clip_grad=0.1', 'schedule.warmup_epochs=1', 'model.head.prototypes=64',
       'model.head.hidden=32', 'model.backbone.embed_dim=24', 'model.backbone.depth=2',
       'model.backbone.num_heads=3', 'model.backbone.drop_path=0.',
       'hooks=[{"type": "KNNProbeHook", "at_start": False, "interval": 1, "size": 32, "source": '
       f'{{"type": "ImageFolder", "root": "{TILES}"}}}}]']
WAYS = {'fsdp': ('fsdp', None), 'ddp': ('ddp', None), 'fsdp_after_ddp': ('fsdp', 'ddp')}


def train(rank, world, folder, name, parallel, after):
    views = load_config(CONFIG).dataset.recipe
    cfg = load_config(CONFIG, [*RUN, *(f'dataset.recipe.{view}.size=32' for view in views),
                               f'parallel={parallel}'])
    runner = Runner(cfg, Launch(rank, world, torch.device('cpu')), f'{folder}/{name}')
    if after:
        runner.resume(f'{folder}/{after}/epoch_1.pth')
    runner.train()


def train_as_rank(rank, folder):
    """Train all ways as one of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    for name, way in WAYS.items():
        train(rank, 2, folder, name, *way)
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Two ranks that share all out, two that do not, and both taken up by another way."""
    folder = tmp_path_factory.mktemp('sharding')
    mp.spawn(train_as_rank, args=(str(folder),), nprocs=2)
    train(0, 1, folder, 'one_after_fsdp', 'fsdp', 'fsdp')
    return folder


def saved(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize('name', ['ddp', 'fsdp_after_ddp', 'one_after_fsdp'])
def test_all_ways_end_in_the_same_file(runs, name):
    ours, theirs = saved(runs / 'fsdp/epoch_2.pth'), saved(runs / name / 'epoch_2.pth')
    assert all(type(value) is torch.Tensor for value in ours['state_dict'].values())
    torch.testing.assert_close(ours['state_dict'], theirs['state_dict'], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours['optimizer']['state'], theirs['optimizer']['state'],
                               rtol=1e-3, atol=1e-5)


def test_probes_see_the_whole_backbone(runs):
    lines = [[json.loads(line) for line in (runs / name / 'metrics.jsonl').read_text().splitlines()]
             for name in ('fsdp', 'ddp')]
    probes, others = ([line['probe_knn'] for line in found if 'probe_knn' in line]
                      for found in lines)
    assert len(probes) == 2 and probes == pytest.approx(others, abs=0.05)
    losses, others = ([line['loss'] for line in found if 'loss' in line] for found in lines)
    assert len(losses) == 6 and losses == pytest.approx(others, rel=1e-5)
    assert (runs / 'fsdp/best_knn.pth').exists()
    assert load_backbone(str(runs / 'fsdp/best_knn.pth')).out_channels == [24]


@pytest.mark.parametrize('config, options, said', [
    (DEMO, [], "PLM changes parameters in its forward pass.*'ddp', or a method"),
    (CONFIG, ['amp=fp16'], 'fp16')])
def test_what_cannot_be_shared_out_is_refused(config, options, said, tmp_path, monkeypatch):
    monkeypatch.setattr('openselfsup.engine.runner.resolve', lambda amp, device: amp)
    cfg = load_config(config, ['dataset.source.root=' + TILES, 'global_batch_size=16',
                               'parallel=fsdp', *options])
    with pytest.raises(UserError, match=said):
        Runner(cfg, Launch(0, 1, torch.device('cpu')), tmp_path / 'run')
