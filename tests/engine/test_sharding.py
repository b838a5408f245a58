"""Runs whose parameters ranks share out: the steps and the checkpoints of all others."""

import json
import os
import resource

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_runs import DEMO, REPO

from openselfsup import load_backbone
from openselfsup.checkpoints import load, parts
from openselfsup.cli.main import dispatch
from openselfsup.engine import runner as running
from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.training.launch import Launch
from openselfsup.training.sharding import whole

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
WAYS = {'fsdp': ('fsdp', None), 'ddp': ('ddp', None), 'fsdp_after_ddp': ('fsdp', 'ddp'),
        'fsdp_after_fsdp': ('fsdp', 'fsdp'), 'ddp_after_fsdp': ('ddp', 'fsdp')}


def build(rank, world, folder, name, parallel, *options):
    views = load_config(CONFIG).dataset.recipe
    cfg = load_config(CONFIG, [*RUN, *(f'dataset.recipe.{view}.size=32' for view in views),
                               f'parallel={parallel}', *options])
    return Runner(cfg, Launch(rank, world, torch.device('cpu')), f'{folder}/{name}')


def train(rank, world, folder, name, parallel, after):
    runner = build(rank, world, folder, name, parallel)
    if after:
        runner.resume(f'{folder}/{after}/epoch_1.pth')
    runner.train()


def as_rank(rank, world, folder, work):
    """Do something as one of several processes."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet_{work.__name__}', rank=rank,
                            world_size=world)
    work(rank, folder)
    dist.destroy_process_group()


def all_ways(rank, folder):
    read, chunk = [], parts._chunk
    parts._chunk = lambda file, info: read.append(info.length) or chunk(file, info)
    for name, way in WAYS.items():
        train(rank, 2, folder, name, *way)
        if name == 'fsdp_after_fsdp':
            with open(f'{folder}/read_{rank}.json', 'w') as file:
                json.dump(sum(read), file)


def more_ranks(rank, folder):
    train(rank, 4, folder, 'four_after_fsdp', 'fsdp', 'fsdp')


def regrouped(rank, folder):
    """Go on with other groups of parameters, in parts and whole."""
    for parallel in ('fsdp', 'ddp'):
        runner = build(rank, 2, folder, f'{parallel}_regrouped', parallel,
                       'model.freeze_last_layer=0', 'optimizer.layer_decay=1.')
        for after in ('fsdp', 'ddp'):
            runner.resume(f'{folder}/{after}/epoch_1.pth')
            saved = load(f'{folder}/{after}/epoch_1.pth')['optimizer']
            places = {name: i for group in saved['param_groups']
                      for name, i in zip(group['param_names'], group['params'])}
            assert places.keys() == {name for name, p in runner.module.named_parameters()
                                     if p.requires_grad}
            for name, p in runner.module.named_parameters():
                if name in places:
                    ours, theirs = (whole(dict(runner.optimizer.state[p])),
                                    saved['state'].get(places[name], {}))
                    assert ours.keys() == theirs.keys(), name
                    assert all(ours[key].equal(theirs[key]) for key in ours), name
            assert len(saved['state']) > 20
        order = [n for group in runner.optimizer.param_groups for n in group['param_names']]
        assert order != [*places]


def trouble(rank, folder):
    """Save where rank 1 cannot write, then where it can again; go on from what is no good."""
    runner = build(rank, 2, folder, 'full', 'fsdp')
    assert runner.save_checkpoint('epoch_1.pth')
    before = os.readlink(f'{folder}/full/latest.pth')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if rank:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    assert not runner.save_checkpoint() and runner.failed_saves == 1
    assert os.readlink(f'{folder}/full/latest.pth') == before
    with pytest.raises(UserError, match='latest.pth: could not be written by rank 1: .* the last '
                                        'good checkpoint is .*epoch_1.pth'):
        runner.save_checkpoint(must=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    dist.barrier()
    assert sorted(os.listdir(f'{folder}/full')) == ['epoch_1.pth', 'latest.pth', before,
                                                    'train.log']
    dist.barrier()
    assert runner.save_checkpoint() and runner.failed_saves == 0
    assert os.readlink(f'{folder}/full/latest.pth') != before
    if rank:
        largest = max(runner.module.parameters(), key=torch.Tensor.numel)
        largest.to_local().detach()[-1] = torch.nan
    with pytest.raises(UserError, match='a gradient was not finite: the weights hold NaN'):
        runner.save_checkpoint('epoch_2.pth')
    assert not os.path.exists(f'{folder}/full/epoch_2.pth')
    running.refuse_spoilt_weights = lambda *_: None  # as earlier versions saved
    assert runner.save_checkpoint('epoch_2.pth')
    with pytest.raises(UserError, match='1 tensors hold NaN'):
        runner.resume(f'{folder}/full/epoch_2.pth')
    if not rank:
        os.truncate(f'{folder}/full/epoch_1.pth/__1_0.distcp', 3000)
    dist.barrier()
    with pytest.raises(UserError, match='__1_0.distcp: this file is damaged or cut short'):
        runner.resume(f'{folder}/full/epoch_1.pth')
    if rank:  # on a host with a disk of its own
        write = parts._Writer.write_data
        parts._Writer.write_data = lambda self, *plan: (
            write(self, *plan), (self.path / '__1_0.distcp').unlink())[0]
    with pytest.raises(UserError, match='__1_0.distcp of another rank is not to be seen from here'):
        runner.save_checkpoint(must=True)


def with_ranks(world, folder, work):
    mp.spawn(as_rank, args=(world, str(folder), work), nprocs=world)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Two ranks that share all out, two that do not, and both taken up by another way."""
    folder = tmp_path_factory.mktemp('sharding')
    with_ranks(2, folder, all_ways)
    train(0, 1, folder, 'one_after_fsdp', 'fsdp', 'fsdp')
    return folder


@pytest.mark.parametrize('name', [*WAYS, 'one_after_fsdp'])
def test_all_ways_end_in_the_same_checkpoint(runs, name):
    assert_same(runs / 'fsdp/epoch_2.pth', runs / name / 'epoch_2.pth')
    assert last_loss(runs / name) == pytest.approx(last_loss(runs / 'fsdp'), rel=1e-5)
    assert (runs / name / 'epoch_2.pth').is_dir() == name.startswith('fsdp')


@pytest.mark.slow
def test_more_ranks_go_on_from_parts(runs):
    with_ranks(4, runs, more_ranks)
    assert_same(runs / 'fsdp/epoch_2.pth', runs / 'four_after_fsdp/epoch_2.pth')
    assert last_loss(runs / 'four_after_fsdp') == pytest.approx(last_loss(runs / 'fsdp'), rel=1e-5)


def test_momenta_stay_with_their_parameters_in_other_groups(runs):
    with_ranks(2, runs, regrouped)


def last_loss(run):
    lines = (run / 'metrics.jsonl').read_text().splitlines()
    return [found['loss'] for line in lines if 'loss' in (found := json.loads(line))][-1]


def assert_same(path, other):
    ours, theirs = load(path), load(other)
    assert ours['meta']['step'] == theirs['meta']['step'] == 6
    assert all(type(value) is torch.Tensor for value in ours['state_dict'].values())
    torch.testing.assert_close(ours['state_dict'], theirs['state_dict'], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours['optimizer']['state'], theirs['optimizer']['state'],
                               rtol=1e-3, atol=1e-5)


def test_each_rank_reads_its_parts_only(runs):
    written = sum(path.stat().st_size for path in (runs / 'fsdp/epoch_1.pth').glob('*.distcp'))
    for rank in range(2):
        read = json.loads((runs / f'read_{rank}.json').read_text())
        assert 0.4 * written < read < 0.6 * written


def test_a_run_keeps_the_folders_that_have_a_name(runs):
    folder = runs / 'fsdp'
    names = {path.name: os.readlink(path) for path in folder.glob('*.pth')}
    assert names.keys() == {'best_knn.pth', 'epoch_1.pth', 'epoch_2.pth', 'latest.pth'}
    assert names['latest.pth'] == names['epoch_2.pth']
    assert set(names.values()) == {path.name for path in folder.iterdir() if path.suffix == '.dcp'}
    assert not list(folder.glob('.*.unfinished'))


def test_what_goes_wrong_at_one_rank_is_told_by_all(tmp_path):
    with_ranks(2, tmp_path, trouble)
    log = (tmp_path / 'full/train.log').read_text()
    assert 'latest.pth: could not be written by rank 1: File too large; what was there' in log
    assert 'training goes on, the last good checkpoint is' in log


def test_parts_become_one_file(runs, tmp_path, capsys):
    out = tmp_path / 'whole.pth'
    dispatch(['merge', str(runs / 'fsdp/latest.pth'), str(out)])
    assert f'wrote {out}' in capsys.readouterr().out
    assert torch.load(out, weights_only=True)['meta']['epoch'] == 2
    assert_same(runs / 'fsdp/latest.pth', out)
    for name, source in dict(folder=runs / 'fsdp/latest.pth', file=out).items():
        dispatch(['extract-backbone', str(source), str(tmp_path / f'{name}.pth')])
    torch.testing.assert_close(*(load(tmp_path / f'{name}.pth')['state_dict']
                                 for name in ('folder', 'file')), rtol=0, atol=0)
    for source, said in ((out, 'not in parts'), (runs / 'fsdp/latest.pth', 'there already')):
        with pytest.raises(UserError, match=said):
            dispatch(['merge', str(source), str(out)])


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
