"""Runs of DeepCluster and ODC: clusters of all tiles, the same on all ranks and after resuming."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_runs import REPO, assert_same_state

from openselfsup.engine.config import load_config
from openselfsup.engine.hooks import Hook
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.training.clustering import compare
from openselfsup.training.launch import Launch

SMALL = ['dataset.source={"type": "ImageFolder", "root": "data/demo/kather2016"}',
         'dataset.recipe.size=32', 'global_batch_size=16', 'log_interval=1', 'epochs=3',
         'workers=0', 'amp=off', 'model.backbone.out_indices=(1,)', 'checkpoint_interval=1',
         'schedule.warmup_epochs=0']
KINDS = {'DeepCluster': ['model.head.num_classes=4', 'model.head.in_channels=64',
                         'hooks.0.pca_dim=8'],
         'ODC': ['model.head.num_classes=4', 'model.min_cluster=5', 'model.neck.in_channels=64',
                 'model.centroids_update_interval=2']}


def make(kind, work_dir, *options, rank=0, world=1):
    cfg = load_config(REPO / f'configs/{kind}/r18_small.py', [*SMALL, *KINDS[kind], *options])
    return Runner(cfg, Launch(rank, world, torch.device('cpu')), work_dir)


class StopAfter(Hook):
    """Asks to stop after a number of steps."""

    def __init__(self, steps):
        self.steps = steps

    def after_step(self, runner, outputs):
        if runner.steps_done == self.steps:
            runner.stop_requested = True


@pytest.fixture(scope='module', params=KINDS)
def through(request, tmp_path_factory):
    """An uninterrupted run of three epochs of three steps."""
    folder = tmp_path_factory.mktemp(request.param)
    runner = make(request.param, folder)
    runner.train()
    return request.param, folder, runner


def lines(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_metrics_tell_of_the_clusters_and_what_they_cost(through):
    kind, folder, runner = through
    rows = [row for row in lines(folder) if 'cluster_s' in row]
    assert [row['epoch'] for row in rows] == ([0, 1, 2] if kind == 'DeepCluster' else [0])
    for row in rows:
        assert row['extract_s'] > 0 and row['cluster_s'] > 0 and row['cluster_objective'] > 0
        assert 1 <= row['cluster_smallest_tiles'] <= 51 / 4 <= row['cluster_largest_tiles'] <= 48
    steps = [row for row in lines(folder) if 'loss' in row]
    assert len(steps) == 9 and all(np.isfinite(row['loss']) for row in steps)
    if kind == 'DeepCluster':
        assert all(0 <= row['cluster_reassigned'] < 1 for row in rows[1:])
        assert all(0 <= row['cluster_agreement'] <= 1 for row in rows[1:])
        labels = torch.load(folder / 'epoch_1.pth', weights_only=True)['state_dict']['labels']
        later = torch.load(folder / 'epoch_2.pth', weights_only=True)['state_dict']['labels']
        assert compare(labels, later).reassigned == pytest.approx(rows[2]['cluster_reassigned'],
                                                                  abs=1e-5)
    else:
        assert {'change_ratio', 'cluster_smallest', 'clusters_small', 'splits'} <= steps[0].keys()


@pytest.mark.parametrize('steps', [3, 4])  # stopped between two epochs, and within one
def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(through, steps, tmp_path):
    kind, folder, _ = through
    stopped = make(kind, tmp_path)
    stopped.hooks.append(StopAfter(steps))
    stopped.train()
    assert stopped.interrupted and stopped.steps_done < 9
    again = make(kind, tmp_path)
    again.resume(tmp_path / 'latest.pth')
    torch.manual_seed(99)
    again.train()
    assert_same_state(folder / 'epoch_3.pth', tmp_path / 'epoch_3.pth')
    costs = [row['epoch'] for row in lines(tmp_path) if 'cluster_s' in row]
    assert costs == ([0, 1, 2] if kind == 'DeepCluster' else [0])


def test_a_run_does_not_go_on_with_other_tiles(through, tmp_path):
    kind, folder, _ = through
    shutil.copytree(REPO / 'data/demo/kather2016', tmp_path / 'tiles')
    first = sorted(path for path in (tmp_path / 'tiles').rglob('*') if path.is_file())[0]
    first.rename(first.with_stem('zz'))  # the last of its class: all others move up
    source = f'dataset.source={{"type": "ImageFolder", "root": "{tmp_path / "tiles"}"}}'
    with pytest.raises(UserError, match='the tiles are not those that it had; expected the same '
                                        'tiles in the same order'):
        make(kind, tmp_path / 'run', source).resume(folder / 'epoch_1.pth')


def test_new_clusters_draw_the_tiles_and_forget_the_heads_momenta(tmp_path):
    runner = make('DeepCluster', tmp_path, 'optimizer.type=Adam')
    runner.call_hooks('before_train')
    runner.call_hooks('before_epoch')
    head = set(runner.algorithm.head.parameters())
    assert set(runner.algorithm.labels.tolist()) == {0, 1, 2, 3}
    sizes = torch.bincount(runner.algorithm.labels)
    shown = np.concatenate([runner.loader.indices(0, i) for i in range(3)])
    seen = torch.bincount(runner.algorithm.labels[shown], minlength=4)
    assert seen.max() <= 51 // 4 + 1 < sizes.max()
    batches = iter(runner.loader)
    runner.train_step(batches)
    batches.close()
    assert head <= runner.optimizer.state.keys()
    runner.position = runner.position.after_epoch()
    runner.hooks[0].after_epoch(runner)
    assert not head & runner.optimizer.state.keys() and runner.optimizer.state
    runner.call_hooks('close')


def found_by(rank, world, folder):
    """Start DeepCluster as one of several processes; save what the rank found."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank,
                                world_size=world)
    runner = make('DeepCluster', f'{folder}/run{world}', rank=rank, world=world)
    runner.call_hooks('before_train')
    hook = runner.hooks[0]
    runner.algorithm.backbone.bn1.running_mean.add_(rank)  # ranks have seen other tiles
    features = hook.features(runner, runner.algorithm.backbone)
    runner.call_hooks('before_epoch')
    torch.save(dict(features=features, labels=runner.algorithm.labels,
                    head=runner.algorithm.head.fc_cls.weight.detach(),
                    order=torch.from_numpy(runner.loader.indices(0, 0))),
               f'{folder}/{world}.{rank}.pt')
    runner.call_hooks('close')
    if world > 1:
        dist.destroy_process_group()


def test_ranks_extract_together_and_agree(tmp_path):
    mp.spawn(found_by, args=(2, str(tmp_path)), nprocs=2)
    found_by(0, 1, tmp_path)
    first, second, alone = (torch.load(tmp_path / f'{name}.pt', weights_only=True)
                            for name in ('2.0', '2.1', '1.0'))
    for key in ('features', 'labels', 'head'):
        assert first[key].equal(second[key]), key
    assert first['head'].equal(alone['head'])
    torch.testing.assert_close(first['features'], alone['features'])
    assert compare(first['labels'], alone['labels']).reassigned < 0.1
    loader = make('DeepCluster', tmp_path / 'one').loader  # draws as the ranks do from their labels
    loader.see_alike(first['labels'].numpy())
    assert torch.cat([first['order'], second['order']]).tolist() == loader.indices(0, 0).tolist()


def test_a_config_without_its_hook_is_refused_and_a_hook_without_its_method(tmp_path):
    for kind in KINDS:
        cfg = load_config(REPO / f'configs/{kind}/r18_small.py', [*SMALL, *KINDS[kind][:-1]])
        cfg.hooks = []
        with pytest.raises(UserError, match=f'{kind} gets its clusters from a hook that this '
                                            rf"config lacks; expected dict\(type='{kind}Hook'\)"):
            Runner(cfg, Launch(0, 1, torch.device('cpu')), tmp_path)
    other = make('DeepCluster', tmp_path)
    from openselfsup.engine.hooks import ODCHook
    with pytest.raises(UserError, match="DeepCluster takes no clusters of this hook; "
                                        "expected model.type='ODC'"):
        ODCHook().before_train(other)
