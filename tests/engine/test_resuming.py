"""Runs that go on: with other settings, with other tiles, beside another process."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small_runs import DEMO, REPO, SMALL, command, small_run, start
from test_training import wait_for_lines

from openselfsup.checkpoints import load, save
from openselfsup.claims import claimed
from openselfsup.datasets import ImageFolder, PackedTiles, pack
from openselfsup.datasets.identity import identity
from openselfsup.engine.config import load_config
from openselfsup.engine.config_text import config_text
from openselfsup.engine.fields import PretrainConfig
from openselfsup.engine.position import Position
from openselfsup.engine.resuming import QUIET, RULES, changes, changes_since, refuse
from openselfsup.engine.runner import Runner
from openselfsup.engine.state import restore_optimizer
from openselfsup.engine.train import train
from openselfsup.engine.work_dir import find_checkpoint, set_aside, write_run_files
from openselfsup.errors import UserError
from openselfsup.training.launch import Launch
from openselfsup.training.optimizers import build_optimizer

ALONE = Launch(0, 1, torch.device('cpu'))


def one_step(folder: Path, *options: str) -> Path:
    """Return the checkpoint of a run that has taken one step of six."""
    runner = Runner(load_config(DEMO, [*SMALL, *options]), ALONE, folder)
    runner.loader.set_position(0, 0)
    batches = iter(runner.loader)
    runner.step(batches, 1, lr=runner.learning_rates[0])
    batches.close()
    runner.position = Position(0, 1)
    runner.save_checkpoint()
    return folder / 'latest.pth'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return one_step(tmp_path_factory.mktemp('one step'))


@pytest.fixture(scope='module')
def checkpoint_of_sgd(tmp_path_factory):
    return one_step(tmp_path_factory.mktemp('sgd'), *SGD)


SGD = ('optimizer={"type": "SGD", "lr": 0.03, "momentum": 0.9, "weight_decay": 1e-4}',)


def other(*options: str) -> list:
    """Return how a config with these options differs from the small run's."""
    return changes(load_config(DEMO, SMALL).to_dict(),
                   load_config(DEMO, [*SMALL, *options]).to_dict())


def test_each_field_of_a_config_has_a_rule():
    fields = {field.name for field in dataclasses.fields(PretrainConfig)}
    assert fields == {key for key in RULES if '.' not in key}


@pytest.mark.parametrize('option, said', [
    ('optimizer.weight_decay=0.05', 'optimizer.weight_decay was 0.0001 and is now 0.05'),
    ('optimizer.betas=(0.8, 0.99)', 'optimizer.betas was not given and is now (0.8, 0.99)'),
    ('optimizer.lr=0.1', 'optimizer.lr was 0.0003 and is now 0.1'),
    ('epochs=5', 'epochs was 2 and is now 5'),
    ('schedule.min_lr=1e-5', 'schedule.min_lr was not given and is now 1e-05'),
    ('schedule.type=Constant', "schedule.type was 'Cosine' and is now 'Constant'"),
    ('base_batch_size=32', 'base_batch_size was None and is now 32'),
    ('global_batch_size=8', 'global_batch_size was 16 and is now 8'),
    ('accumulate=2', 'accumulate was 1 and is now 2'),
    ('seed=3', 'seed was 0 and is now 3'),
    ('amp=off', "amp was 'auto' and is now 'off'"),
    ('clip_grad=1.0', 'clip_grad was None and is now 1.0'),
    ('deterministic=True', 'deterministic was False and is now True'),
    ('normalize.mean=[0.5, 0.5, 0.5]',
     'normalize.mean was [0.485, 0.456, 0.406] and is now [0.5, 0.5, 0.5]'),
    ('model.temperature=0.1', 'model.temperature was 0.2 and is now 0.1'),
    ('dataset.source.root=data/demo', "root was 'data/demo/kather2016' and is now 'data/demo'"),
    ('dataset.recipe.steps.jitter.p=0.5', 'jitter.p was 0.8 and is now 0.5'),
    ('dataset.recipe.steps.turn=None', "'QuarterTurn', 'p': 1.0} and is now None"),
])
def test_what_changes_the_numbers_of_a_run_is_told(option, said):
    found = other(option)
    assert len(found) == 1 and said in str(found[0])
    assert found[0].rule.startswith('applied from here on')


@pytest.mark.parametrize('option', [
    'workers=0', 'log_interval=7', 'checkpoint_interval=1', 'save_every=3', 'keep_checkpoints=2',
    'compile=True', 'channels_last=False', 'render=worker', 'work_dir=elsewhere'])
def test_what_no_number_depends_on_is_applied(option):
    assert [change.rule for change in other(option)] == [QUIET]


def test_the_order_of_steps_counts_and_tuples_are_lists():
    steps = dict(a=dict(p=1), b=dict(p=2))
    again = dict(b=dict(p=2), a=dict(p=1))
    found = changes(dict(dataset=dict(steps=steps)), dict(dataset=dict(steps=again)))
    assert [str(change) for change in found] == [
        "dataset.steps was ['a', 'b'] and is now ['b', 'a']"]
    assert changes(dict(dataset=dict(x=(1, [2]))), dict(dataset=dict(x=[1, (2,)]))) == []
    assert changes(dict(model=steps), dict(model=again)) == []


def test_views_of_a_list_are_those_that_have_names_now():
    now = load_config(REPO / 'configs/demo/ca2cl_r18.py')
    was = now.to_dict()
    was['dataset'].update(recipe=list(was['dataset']['recipe'].values()), n_views=2)
    meta = dict.fromkeys(('epoch', 'iteration', 'step', 'global_batch_size'), 1)

    def found(was: dict) -> list[str]:
        meta['config'] = config_text(Config(was))
        return list(map(str, changes_since(dict(meta=meta), now, {}, 'latest.pth')))

    assert found(was) == []
    was['dataset']['recipe'][1]['size'] = 64
    assert found(was) == ['dataset.recipe.weak.size was 64 and is now 96']
    was = now.to_dict()
    was['dataset']['recipe'] = dict(reversed(was['dataset']['recipe'].items()))
    assert found(was) == ["dataset.recipe was ['weak', 'strong'] and is now ['strong', 'weak']"]


def resumed(checkpoint: Path, folder: Path, *options: str) -> Runner:
    runner = Runner(load_config(DEMO, [*SMALL, *options]), ALONE, folder)
    runner.resume(checkpoint)
    return runner


def test_the_same_settings_are_no_news(checkpoint, tmp_path, capsys):
    runner = resumed(checkpoint, tmp_path)
    said = capsys.readouterr().out
    assert 'resumed' in said
    assert all(word not in said for word in ('views', 'is now', 'jumps'))
    state = runner.optimizer.state_dict()['state'][0]
    assert state['exp_avg'].abs().sum() > 0 and state['step'] == 1


def test_settings_of_the_optimiser_are_those_of_today(checkpoint, tmp_path, capsys):
    runner = resumed(checkpoint, tmp_path, 'optimizer.weight_decay=0.05',
                     'optimizer.betas=(0.8, 0.99)', 'optimizer.eps=1e-6', 'optimizer.lr=0.003')
    said = capsys.readouterr().out
    for name in ('weight_decay', 'betas', 'eps', 'lr'):
        assert f'optimizer.{name} was ' in said
    group, = runner.optimizer.param_groups
    assert (group['weight_decay'], group['betas'], group['eps']) == (0.05, (0.8, 0.99), 1e-6)
    assert runner.optimizer.state_dict()['state'][0]['step'] == 1  # and the momenta are kept
    # Step 2 of the warm-up over three steps: 0.001 + 0.999 / 3 of the learning rate.
    assert ('the learning rate of the next step was 0.0001002 and is now 0.001002: it jumps'
            in said)


def test_momentum_of_sgd_is_that_of_today(checkpoint_of_sgd, tmp_path):
    runner = resumed(checkpoint_of_sgd, tmp_path, *SGD, 'optimizer.momentum=0.5',
                     'optimizer.nesterov=True')
    group, = runner.optimizer.param_groups
    assert group['momentum'] == 0.5 and group['nesterov'] is True


@pytest.mark.parametrize('options, was, now', [
    (('epochs=4',), '0.0001002', None), (('schedule.warmup_epochs=2',), '0.0001002', '5.025e-05'),
    (('base_batch_size=32',), '0.0001002', '5.01e-05')])
def test_a_jump_of_the_learning_rate_is_told(checkpoint, tmp_path, capsys, options, was, now):
    resumed(checkpoint, tmp_path, *options)
    said = capsys.readouterr().out
    if now is None:  # still in the warm-up, which does not depend on the epochs
        assert 'jumps' not in said and 'follows its new curve' in said
    else:
        assert f'the learning rate of the next step was {was} and is now {now}: it jumps' in said


def test_a_loss_scale_that_is_new_starts_from_its_default(checkpoint, tmp_path):
    state = load(checkpoint)
    assert state['scaler'] == {}
    runner = Runner(load_config(DEMO, SMALL), ALONE, tmp_path)
    runner.step.scaler = torch.amp.GradScaler('cpu')
    runner.resume(checkpoint)
    assert runner.step.scaler.get_scale() == 2.0**16


def test_what_cannot_change_is_refused_all_at_once(tmp_path):
    found = other('optimizer.type=Adam', 'optimizer.weight_decay=0.05', 'pretrained=r18.pth',
                  'optimizer.amsgrad=True')
    with pytest.raises(UserError) as caught:
        refuse(found, 'run/latest.pth')
    said = str(caught.value)
    assert said.startswith('run/latest.pth: ') and '--pretrained run/latest.pth' in said
    for words in ("optimizer.type was 'AdamW' and is now 'Adam': the momenta",
                  "pretrained was None and is now 'r18.pth': a run that goes on has",
                  'amsgrad was not given and is now True: '):
        assert words in said
    assert 'weight_decay' not in said
    refuse([change for change in found if 'weight_decay' in change.key], 'run/latest.pth')
    with pytest.raises(UserError, match='gram.start was 2.* the earlier teacher was taken'):
        refuse(changes(dict(model=dict(gram=dict(start=2.))),
                       dict(model=dict(gram=dict(start=1.)))), 'a.pth')
    with pytest.raises(UserError, match="model.type was 'PLM' and is now 'DenseCL'"):
        refuse(changes(dict(model=dict(type='PLM')), dict(model=dict(type='DenseCL'))), 'a.pth')


def test_another_optimiser_or_model_is_refused_before_anything_changes(
        checkpoint, checkpoint_of_sgd, tmp_path):
    runner = Runner(load_config(DEMO, [*SMALL, 'model.queue_len=24']), ALONE, tmp_path)
    before = {key: value.clone() for key, value in runner.algorithm.state_dict().items()}
    with pytest.raises(UserError, match="optimizer.type was 'SGD' and is now 'AdamW'"):
        runner.resume(checkpoint_of_sgd)
    with pytest.raises(UserError, match=r'queue.vectors.*model.queue_len was 40 and is now 24'):
        runner.resume(checkpoint)
    assert all(value.equal(before[key])
               for key, value in runner.algorithm.state_dict().items())
    assert not list(tmp_path.glob('config*'))


@pytest.mark.parametrize('meta', [{}, None, dict(epoch=1, iteration=0, step=3)])
def test_what_is_no_checkpoint_of_a_run_says_so(meta):
    with pytest.raises(UserError, match="a.pth: .*'meta' lacks .*config"):
        changes_since(dict(meta=meta), load_config(DEMO, SMALL), {}, 'a.pth')


@pytest.mark.parametrize('text', ['epochs = open("x")', 'a b', 'import os', 'a.b = 1', '\0', 7,
                                  'a = ' + 500 * '[' + 500 * ']'])
def test_a_config_is_read_and_never_run(text):
    meta = dict(epoch=1, iteration=0, step=3, global_batch_size=16, config=text)
    with pytest.raises(UserError, match='a.pth: the config in this checkpoint cannot be read'):
        changes_since(dict(meta=meta), load_config(DEMO, SMALL), {}, 'a.pth')


def test_tiles_are_known_by_what_is_in_them(tmp_path, capsys):
    tiles, moved = tmp_path / 'tiles', tmp_path / 'moved'
    shutil.copytree(REPO / 'data/demo/kather2016', tiles)
    first = identity(ImageFolder(str(tiles)))
    shutil.copytree(tiles, moved)  # with the times of change
    assert identity(ImageFolder(str(moved))) == first
    store = pack(ImageFolder(str(tiles)), tmp_path / 'packed')
    packed = identity(store)
    assert packed['tile_names'] == first['tile_names']

    tile = tiles / 'TUMOR/image_007.png'
    tile.write_bytes((tiles / 'TUMOR/image_019.png').read_bytes())
    second = identity(ImageFolder(str(tiles)))
    assert second['tile_names'] == first['tile_names']
    assert second['tile_contents'] != first['tile_contents']
    again = identity(pack(ImageFolder(str(tiles)), tmp_path / 'packed again'))
    assert again['tile_contents'] != packed['tile_contents']
    assert identity(PackedTiles(str(tmp_path / 'packed'))) == packed

    tile.rename(tiles / 'TUMOR/image_008.png')
    third = identity(ImageFolder(str(tiles)))
    assert third['tile_names'] != first['tile_names']
    said = [str(change) for change in changes(first, third)]
    assert [line.split()[0] for line in said] == ['tile_names', 'tile_contents']


def test_tiles_are_known_however_their_folder_is_written(tmp_path, monkeypatch):
    shutil.copytree(REPO / 'data/demo/kather2016', tmp_path / 'tiles')
    monkeypatch.chdir(tmp_path)
    first = identity(ImageFolder('tiles'))
    for root in ('./tiles', 'tiles/', 'tiles//', 'x/../tiles', str(tmp_path / 'tiles')):
        (tmp_path / 'x').mkdir(exist_ok=True)
        assert identity(ImageFolder(root)) == first, root
    assert identity(ImageFolder('tiles/TUMOR')) != first


def test_other_tiles_are_told(checkpoint, tmp_path, capsys):
    state = load(checkpoint)
    state['meta'].update(tiles=50, tile_contents='others', world_size=4)
    save(state, tmp_path / 'other.pth')
    resumed(tmp_path / 'other.pth', tmp_path)
    said = capsys.readouterr().out
    for words in ('tiles was 50 and is now 51', "tile_contents was 'others' and is now",
                  'world_size was 4 and is now 1: applied from here on; tiles and views stay'):
        assert words in said
    assert 'tile_names' not in said


def test_a_checkpoint_whose_views_were_drawn_by_rank_goes_on_and_says_so(
        checkpoint, tmp_path, capsys):
    state = load(checkpoint)
    assert state['meta'].pop('draws') == 2
    save(state, tmp_path / 'old.pth')
    runner = resumed(tmp_path / 'old.pth', tmp_path)
    assert 'further views differ' in ' '.join(capsys.readouterr().out.split())
    runner.save_checkpoint()
    resumed(tmp_path / 'latest.pth', tmp_path)
    assert 'views differ' not in capsys.readouterr().out


def test_a_run_that_goes_on_needs_its_pretrained_weights_no_more(checkpoint, tmp_path):
    state = load(checkpoint)
    state['meta']['config'] = state['meta']['config'].replace('pretrained = None',
                                                              "pretrained = 'gone.pth'")
    save(state, tmp_path / 'latest.pth')
    for options in (['pretrained=gone.pth'], []):
        cfg = load_config(DEMO, [*SMALL, *options])
        assert changes_since(state, cfg, {}, 'a.pth') == []
        assert cfg.pretrained == 'gone.pth'  # what is recorded stays true
    cfg = load_config(DEMO, [*SMALL, 'pretrained=gone.pth', 'epochs=1'])
    cfg.work_dir = str(tmp_path)
    assert train(cfg, ALONE, 'auto') == 0
    assert load(tmp_path / 'latest.pth')['meta']['epoch'] == 1


def test_the_config_of_each_part_of_a_run_is_kept(tmp_path):
    def write(step: int, *options: str) -> str:
        cfg = load_config(DEMO, [*SMALL, *options])
        write_run_files(tmp_path, cfg, dict(host='a'), step)
        return sorted(path.name for path in tmp_path.iterdir())

    assert write(0) == ['config.py', 'environment.json']
    first = (tmp_path / 'config.py').read_text()
    assert write(3) == ['config.py', 'environment.json']  # nothing is other
    assert write(5, 'seed=1') == ['config.py', 'config_from_step_5.py', 'environment.json']
    assert write(7, 'seed=1') == ['config.py', 'config_from_step_5.py', 'environment.json']
    write(9, 'seed=2')
    assert (tmp_path / 'config.py').read_text() == first
    assert load_config(tmp_path / 'config_from_step_9.py').seed == 2
    assert write(12) == ['config.py', 'config_from_step_12.py', 'config_from_step_5.py',
                         'config_from_step_9.py', 'environment.json']
    # Back to a checkpoint before that: later steps are made anew.
    assert write(6, 'seed=1') == ['config.py', 'config_from_step_5.py', 'environment.json']
    assert write(0, 'seed=3') == ['config.py', 'environment.json']
    assert load_config(tmp_path / 'config.py').seed == 3


def test_a_directory_with_a_run_takes_no_other(tmp_path):
    assert find_checkpoint(tmp_path, None) is find_checkpoint(tmp_path, 'auto') is None
    for epoch in (9, 10):
        (tmp_path / f'epoch_{epoch}.pth').touch()
    assert find_checkpoint(tmp_path, 'auto') == tmp_path / 'epoch_10.pth'  # latest.pth is gone
    (tmp_path / 'latest.pth').touch()
    assert find_checkpoint(tmp_path, 'auto') == tmp_path / 'latest.pth'
    own = tmp_path / 'epoch_9.pth'
    assert find_checkpoint(tmp_path, str(own)) == own
    with pytest.raises(UserError, match='already holds a run.*--resume'):
        find_checkpoint(tmp_path, None)
    with pytest.raises(UserError, match='not one of its own.*another --work-dir'):
        find_checkpoint(tmp_path, str(tmp_path / 'elsewhere/epoch_9.pth'))


def test_what_a_start_without_a_checkpoint_left_is_kept(tmp_path):
    assert set_aside(tmp_path) is None
    for number in (1, 2):
        (tmp_path / 'metrics.jsonl').write_text(f'{{"step": {number}}}\n')
        (tmp_path / 'config.py').write_text('')
        assert set_aside(tmp_path) == tmp_path / f'earlier_{number}'
        assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == []
    assert (tmp_path / 'earlier_1/metrics.jsonl').read_text() == '{"step": 1}\n'
    (tmp_path / 'config.py').write_text('')
    assert set_aside(tmp_path) is None  # a start that counted nothing


def test_a_second_run_in_a_work_directory_is_refused_by_name(tmp_path, tool):
    """Two requeued jobs: the first goes on as if nothing had been; then its successor does."""
    metrics = tmp_path / 'metrics.jsonl'
    first = start(command(DEMO, tmp_path, options=('epochs=200', 'save_every=1')))
    try:
        wait_for_lines(metrics, 2, first)
        before = {name: (tmp_path / name).read_bytes() for name in ('config.py', 'train.log')}
        lines = metrics.read_text()
        second = tool(*small_run(DEMO, tmp_path, '--resume', options=('epochs=3', 'seed=5')))
        assert second.returncode == 2
        for part in (f'process {first.pid} on ', 'pretraining', 'tools/train.py', 'since',
                     str(tmp_path)):
            assert part in second.stderr
        assert (tmp_path / 'config.py').read_bytes() == before['config.py']
        assert (tmp_path / 'train.log').read_bytes().startswith(before['train.log'])
        assert metrics.read_text().startswith(lines)
    finally:
        first.kill()  # as a node that fails
        first.communicate()
    done = load(tmp_path / 'latest.pth')['meta']['step']
    epochs = done // 3 + 1
    cfg = load_config(DEMO, [*SMALL, f'epochs={epochs}'])
    cfg.work_dir = str(tmp_path)
    assert train(cfg, ALONE, 'auto') == 0
    assert f'epochs was 200 and is now {epochs}' in (tmp_path / 'train.log').read_text()
    steps = [json.loads(line)['step'] for line in metrics.read_text().splitlines()]
    assert steps == list(range(1, 3 * epochs + 1))
    assert 'epochs = 200' in (tmp_path / 'config.py').read_text()
    assert f'epochs = {epochs}' in (tmp_path / f'config_from_step_{done}.py').read_text()
    assert not (tmp_path / '.in_use').exists()


def test_all_ranks_learn_that_a_directory_is_held(tmp_path, free_port):
    environment = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port, SLURM_NTASKS='2',
                       OMP_NUM_THREADS='1')
    with claimed(tmp_path, 'testing'):
        ranks = [start(command(DEMO, tmp_path, '--launcher', 'slurm'), **environment,
                       SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)]
        outputs = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [2, 2], outputs
    assert f'process {os.getpid()} on' in outputs[0]
    assert 'Traceback' not in ''.join(outputs)


def test_a_run_that_lost_its_directory_writes_no_checkpoint(tmp_path):
    runner = Runner(load_config(DEMO, SMALL), ALONE, tmp_path)
    with claimed(tmp_path, 'pretraining') as claim:
        runner.claim = claim
        runner.save_checkpoint()
        (tmp_path / '.in_use').unlink()
        with pytest.raises(UserError, match='no longer holds this folder'):
            runner.save_checkpoint('epoch_1.pth')
    assert not (tmp_path / 'epoch_1.pth').exists()


def test_settings_of_single_parameters_are_those_of_today():
    def build(**options):
        module = torch.nn.Linear(2, 2)
        return build_optimizer(module, dict(type='SGD', momentum=0.9, **options), 0.1)

    was = build(paramwise_options={'bias': dict(lr_mult=2, momentum=0.5)})
    now = build(paramwise_options={'bias': dict(lr_mult=3, momentum=0.7)})
    restore_optimizer(now, was.state_dict(), 'latest.pth')
    assert [group.get('lr_mult') for group in now.param_groups] == [None, 3]
    assert [group['momentum'] for group in now.param_groups] == [0.9, 0.7]
    now = build(paramwise_options={'weight': dict(lr_mult=4)})
    restore_optimizer(now, was.state_dict(), 'latest.pth')
    assert [group.get('lr_mult') for group in now.param_groups] == [4, None]
    restore_optimizer(build(), was.state_dict(), 'latest.pth')


class Tower(torch.nn.Module):
    """Three blocks alike, and a head with a pace of its own if asked for."""

    def __init__(self, paced: bool = False):
        super().__init__()
        self.backbone = torch.nn.ModuleDict(dict(blocks=torch.nn.ModuleList(
            torch.nn.Linear(4, 4) for _ in range(3))))
        self.head = torch.nn.Linear(4, 4)
        self.paced = paced

    def rate_factors(self) -> dict[str, float]:
        return {'head.': 0.} if self.paced else {}


def optimizer_of(module: torch.nn.Module, **options) -> torch.optim.Optimizer:
    return build_optimizer(module, dict(type='AdamW', **options), 1e-3)


def momenta(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    return {name: optimizer.state[p]['exp_avg'].mean().item()
            for name, p in module.named_parameters() if optimizer.state[p]}


def slower(pattern: str) -> dict:
    return dict(layer_decay=1., paramwise_options={pattern: dict(lr_mult=0.5)})


def one_step_of(module: torch.nn.Module, options: dict) -> tuple[dict, dict[str, float]]:
    """Return an optimiser's state after a step, and the momenta, another of each parameter."""
    optimizer = optimizer_of(module, **options)
    for i, p in enumerate(module.parameters()):
        p.grad = torch.full_like(p, i + 1.)
    optimizer.step()
    return optimizer.state_dict(), momenta(module, optimizer)


def without_names(state: dict) -> dict:
    """Return the state as earlier versions saved it."""
    return dict(state, param_groups=[
        {key: value for key, value in group.items() if key != 'param_names'}
        for group in state['param_groups']])


@pytest.mark.parametrize('options, paced', [
    (slower(r'blocks\.2\.'), False), (slower(r'blocks\.[01]\.'), False), ({}, False),
    (dict(decay_norm_and_bias=False), False), (dict(layer_decay=0.5), False), ({}, True)])
def test_each_parameter_keeps_its_momenta_however_it_is_grouped(options, paced):
    module = Tower()
    state, own = one_step_of(module, slower(r'blocks\.1\.'))
    module.paced = paced
    now = optimizer_of(module, **options)
    settings = [dict(group) for group in now.param_groups]
    assert restore_optimizer(now, state, 'latest.pth') == []
    assert momenta(module, now) == own and len(own) == 8
    assert [dict(group) for group in now.param_groups] == settings


def test_parameters_that_were_not_trained_start_anew():
    module = Tower()
    module.head.requires_grad_(False)
    state, own = one_step_of(module, {})
    module.head.requires_grad_(True)
    now = optimizer_of(module)
    assert restore_optimizer(now, state, 'latest.pth') == ['head.weight', 'head.bias']
    assert momenta(module, now) == own and len(own) == 6
    module.backbone.requires_grad_(False)
    with pytest.raises(UserError, match='latest.pth: .* trains none of .* now: head.weight'):
        restore_optimizer(optimizer_of(module), state, 'latest.pth')


def test_momenta_without_names_are_not_given_to_others():
    module = Tower()
    state, own = one_step_of(module, slower(r'blocks\.1\.'))
    old, other = without_names(state), slower(r'blocks\.2\.')
    found = changes(dict(optimizer=slower(r'blocks\.1\.')), dict(optimizer=other))
    with pytest.raises(UserError, match='latest.pth: this checkpoint .* does not name the '
                                        'parameters .*: optimizer.paramwise_options.* was .*0.5'):
        restore_optimizer(optimizer_of(module, **other), old, 'latest.pth', found)
    same = optimizer_of(module, **slower(r'blocks\.1\.'))
    restore_optimizer(same, old, 'latest.pth')
    assert momenta(module, same) == own
    module.paced = True
    found = changes(dict(model=dict(freeze=0)), dict(model=dict(freeze=1)))
    with pytest.raises(UserError, match=r'own was nothing and is now head\. \(model.freeze was 0'):
        restore_optimizer(optimizer_of(module, **slower(r'blocks\.1\.')), old, 'latest.pth', found)


def test_momenta_without_names_in_the_order_of_the_model_are_kept():
    module = Tower()
    state, own = one_step_of(module, {})
    options = dict(paramwise_options={'bias': dict(weight_decay=0.)})
    now = optimizer_of(module, **options)
    restore_optimizer(now, without_names(state), 'latest.pth', changes({}, dict(optimizer=options)))
    assert momenta(module, now) == own
