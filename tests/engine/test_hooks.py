import contextlib
import dataclasses
import json
import logging
import re
import resource
import signal
import threading
import types
from functools import partial
from pathlib import Path

import mmengine.hooks
import pytest
import torch
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from openselfsup.engine.hooks import HealthHook, Hook, build_hooks
from openselfsup.engine.signals import caught
from openselfsup.errors import UserError
from openselfsup.files import NotWritten

CFG = Config(dict(model=dict(queue_len=4096, momentum=0.99), optimizer=dict(lr=1e-3),
                  schedule=dict(type='Cosine'), global_batch_size=64))


def health(records, caplog, cfg=CFG, first_step=100, rows=None):
    hook = HealthHook()
    logger = logging.getLogger('health')
    for step, record in enumerate(records, first_step):
        runner = types.SimpleNamespace(record=dict(record, step=step), logger=logger, cfg=cfg,
                                       steps_per_epoch=60, max_steps=240, world_size=1,
                                       algorithm=types.SimpleNamespace(features=torch.ones(
                                           rows or cfg.global_batch_size, 2)))
        hook.after_step(runner, {})
        hook.after_step(runner, {})  # the same record is not counted twice
    return [r.getMessage() for r in caplog.records]


def test_collapse_raises_one_visible_warning(caplog):
    messages = health(6 * [dict(feature_std=0.01, effective_rank=1.5, dead_dimensions=0.9)], caplog)
    assert len(messages) == 1 and 'COLLAPSE' in messages[0] and 'feature_std is 0.01' in messages[0]
    assert 'optimizer.lr (0.0003 instead of 0.001)' in messages[0]
    assert 'schedule.warmup_epochs, now 0' in messages[0] and 'queue' not in messages[0]
    assert "norm_cfg.type='SplitBN'" in messages[0]


@pytest.mark.parametrize(('records', 'said'), [
    (3 * [dict(dead_dimensions=0.8)], 'dead_dimensions is 0.8'),
    (3 * [dict(dead_dimensions=0.8), dict()], 'dead_dimensions is 0.8'),  # not in every record
    ([dict(effective_rank=30), *3 * [dict(effective_rank=4)]], 'effective_rank is 4 (healthy'),
    ([dict(effective_rank=33), *9 * [dict(effective_rank=12)]], None),  # noise that gets order
    (2 * [dict(effective_rank=30), *2 * [dict(effective_rank=4)]], None)])
def test_other_signs_of_collapse(records, said, caplog):
    messages = health(records, caplog)
    assert [said in message for message in messages] == [True] if said else messages == []


NARROW = dict(feature_std=0.08, effective_rank=4.4, dead_dimensions=0.6)
BROAD = dict(feature_std=0.5, effective_rank=30., dead_dimensions=0.)


@pytest.mark.parametrize(('records', 'step'), [
    ([dict(feature_std=0.07, effective_rank=5.1, dead_dimensions=0.7), *95 * [NARROW]], None),
    (120 * [NARROW], 102),  # as it began, for too long
    ([dict(effective_rank=4.9), *3 * [dict(effective_rank=2.4)]], 3),
    ([dict(dead_dimensions=0.7), *3 * [dict(dead_dimensions=0.86)]], 3),
    ([dict(cls_cosine=0.9999), *95 * [dict(cls_cosine=0.995)]], None),
    (120 * [dict(cls_cosine=1.)], 102),
    ([dict(cls_cosine=0.9), *3 * [dict(cls_cosine=0.995)]], 3),
    ([BROAD, *3 * [NARROW]], 3)])
def test_a_run_may_start_narrow_but_not_get_narrower(records, step, caplog):
    messages = health(records, caplog, first_step=0)
    assert len(messages) == (step is not None)
    if step is not None:
        assert messages[0].startswith('CONSTANT?' if 'cls_cosine' in records[0] else 'COLLAPSE?')
        assert f'up to step {step}:' in messages[0]


def test_a_run_may_be_narrow_while_it_warms_up(caplog):
    cfg = Config(dict(CFG.to_dict(), schedule=dict(type='Cosine', warmup_epochs=2)))  # 120 steps
    assert health(115 * [NARROW], caplog, cfg, first_step=0) == []
    assert 'up to step 122' in health(130 * [NARROW], caplog, cfg, first_step=0)[0]


def test_a_small_batch_cannot_have_a_high_rank(caplog):
    cfg = Config(dict(model={}, optimizer=dict(lr=1e-3), global_batch_size=8, schedule={}))
    assert health(9 * [dict(effective_rank=2.5)], caplog, cfg) == []
    assert 'effective_rank is 1.5' in health(3 * [dict(effective_rank=1.5)], caplog, cfg)[0]
    caplog.clear()
    cfg = Config(dict(cfg.to_dict(), global_batch_size=32, accumulate=4))
    assert health(9 * [dict(effective_rank=2.5)], caplog, cfg, rows=8) == []  # of a pass
    assert health(9 * [dict(effective_rank=1.)], caplog, cfg, rows=4) == []  # the last one, short
    assert health(9 * [dict(effective_rank=1., dead_dimensions=1.)], caplog, cfg, rows=1) == []


def test_drift_of_a_queue_is_told_in_the_terms_of_the_config(caplog):
    drifting = dict(queue_drift=0.9, queue_dense_drift=0.97)
    messages = health(9 * [drifting], caplog)
    assert len(messages) == 1 and 'DRIFT? queue_drift is 0.90' in messages[0]
    for said in ('model.momentum 0.999 instead of 0.99', 'which holds the keys of 64 steps',
                 'model.queue_len 1024 instead of 4096', 'optimizer.lr (0.0003 instead of 0.001)'):
        assert said in messages[0]


@pytest.mark.parametrize(('temperature', 'advised'), [(0.07, '0.04 instead of 0.07'),
                                                      (0.04, '0.02 instead of 0.04'), (0.02, None)])
def test_a_teacher_that_is_undecided_is_to_be_sharper(temperature, advised, caplog):
    cfg = Config(dict(model=dict(type='DINO', head=dict(type='DINOHead'), targets='sinkhorn',
                                 teacher_temperature=temperature),
                      optimizer=dict(lr=1e-3), schedule={}, global_batch_size=64))
    message, = health(3 * [dict(teacher_entropy=0.99)], caplog, cfg)
    assert message.startswith('UNIFORM?')
    assert (f'teacher_temperature {advised}' in message) if advised else 'sharper' not in message
    assert 'optimizer.lr' not in message


@pytest.mark.parametrize(('alone', 'causes'), [(0, []), (1, ['UNIFORM'])])
def test_a_teacher_of_random_weights_has_the_warm_up_to_decide(alone, causes, caplog):
    cfg = Config(dict(model=dict(type='DINO', head=dict(type='DINOHead'), heads_only_epochs=alone),
                      optimizer=dict(lr=1e-3), schedule=dict(warmup_epochs=2),
                      global_batch_size=64))
    messages = health(9 * [dict(teacher_entropy=0.99)], caplog, cfg, first_step=105)
    assert [message.split('?')[0] for message in messages] == causes
    assert len(health(9 * [dict(teacher_entropy=0.99)], caplog, cfg, first_step=120)) > len(causes)


def test_heads_alone_are_not_blamed_before_their_epochs_end(caplog):
    cfg = Config(dict(model=dict(type='DINO', head=dict(type='DINOHead'), heads_only_epochs=1.5),
                      optimizer=dict(lr=1e-3), schedule={}, global_batch_size=64))
    records = [dict(epoch=2, loss_dino=100.)] * 9
    assert health(records[:4], caplog, cfg, first_step=87) == []  # up to 90 of 60 steps an epoch
    message, = health(records, caplog, cfg, first_step=87)
    assert message.startswith('HEADS?') and 'for 3 records up to step 93' in message


@pytest.mark.parametrize(('momentum', 'slow'), [(0.99, True), (0.9, False)])
def test_an_undecided_teacher_is_to_follow_fast_in_a_short_run(momentum, slow, caplog):
    cfg = Config(dict(model=dict(type='DINO', head=dict(type='DINOHead'),
                                 teacher_momentum=momentum),
                      optimizer=dict(lr=1e-3), schedule={}, global_batch_size=64))
    message, = health(3 * [dict(teacher_entropy=0.99)], caplog, cfg)
    assert ('it remembers 100 of 240 steps' in message) == slow


def test_what_cannot_help_or_is_not_there_is_not_advised(caplog):
    cfg = Config(dict(model=dict(memory=3), optimizer=dict(lr=1e-3), global_batch_size=64,
                      schedule=dict(type='Cosine', warmup_epochs=2)))
    messages = health(3 * [dict(memory_drift=1, feature_std=0)], caplog, cfg, first_step=120)
    assert [m.split('?')[0] for m in messages] == ['COLLAPSE', 'DRIFT']
    assert messages[1].endswith('try a lower optimizer.lr (0.0003 instead of 0.001)')


def test_a_healthy_or_recovering_run_is_left_alone(caplog):
    bad = dict(effective_rank=15.0, feature_std=0.05, queue_drift=0.8, dead_dimensions=0.9)
    good = dict(effective_rank=20.0, feature_std=0.8, queue_drift=0.3, dead_dimensions=0.0)
    assert health([bad, bad, good, bad, bad, good, dict()], caplog) == []


def test_a_full_disk_does_not_end_a_run_that_can_go_on(make_runner, monkeypatch, capsys):
    from openselfsup import checkpoints
    runner = make_runner('checkpoint_interval=1')
    real, calls = checkpoints.save, []

    def full_once(state, path):
        calls.append(path)
        if len(calls) == 1:
            raise NotWritten('no space left on the device', where=str(path))
        real(state, path)

    monkeypatch.setattr(checkpoints, 'save', full_once)
    runner.train()
    assert 'training goes on' in capsys.readouterr().out
    assert len(calls) == 2 and torch.load(calls[-1], weights_only=True)['meta']['epoch'] == 2


def test_a_full_disk_at_the_end_is_an_error(make_runner, monkeypatch):
    from openselfsup import checkpoints

    def full(state, path):
        raise NotWritten('no space left on the device', where=str(path))

    runner = make_runner('epochs=1')
    monkeypatch.setattr(checkpoints, 'save', full)
    with pytest.raises(UserError, match='no space left'):
        runner.train()


def test_a_run_that_can_never_save_stops_and_says_so(make_runner, capsys):
    runner = make_runner('checkpoint_interval=1', 'epochs=9', 'workers=0')
    with small_files(100_000), pytest.raises(UserError, match='File too large.*checkpoint is None'):
        runner.train()
    assert runner.steps_done == 9 and runner.failed_saves == 3
    said = capsys.readouterr().out
    assert 'epoch_1.pth: could not be written' in said and '(attempt 2)' in said
    assert 'views.png: could not be written' in said  # larger than that, and told only
    assert not list(Path(runner.work_dir).glob('*.p[nt]*'))  # nothing half written


@contextlib.contextmanager
def small_files(limit: int):
    """Let no file grow beyond ``limit`` bytes: to whoever writes it looks like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class FullInTheSecondEpoch(Hook):
    """The disk is full from the second epoch's start to the third's."""

    def __init__(self):
        self.stack = contextlib.ExitStack()

    def before_epoch(self, runner):
        runner.saver.settle(wait=True)  # written while the disk is full
        self.stack.close()
        if runner.position.epoch == 1:
            self.stack.enter_context(small_files(500))


def test_a_disk_that_fills_in_the_middle_ends_no_run_and_loses_no_line(make_runner, capsys):
    runner = make_runner('checkpoint_interval=1', 'epochs=4', 'workers=0')
    runner.hooks.append(FullInTheSecondEpoch())
    runner.train()
    said = capsys.readouterr().out
    folder = Path(runner.work_dir)
    for name in ('metrics.jsonl', 'events.out', 'epoch_2.pth'):
        assert re.search(rf'{name}\S*:? could not be written', said), name
    assert said.count('metrics.jsonl could not be written') == 1
    assert said.count('is written again, nothing is missing') == 2
    assert 'the last good checkpoint is ' + str(folder / 'epoch_1.pth') in said
    assert {p.name for p in folder.glob('*.pth')} == {'epoch_1.pth', 'epoch_3.pth', 'epoch_4.pth',
                                                     'latest.pth'}
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == list(range(1, 13))
    events = EventAccumulator(str(folder / 'tensorboard'))
    events.Reload()
    found = {e.step: e.value for e in events.Scalars('loss')}
    assert found == {row['step']: pytest.approx(row['loss']) for row in rows}
    # What was said meanwhile is in the log, too: it waited in memory.
    log = (folder / 'train.log').read_text()
    assert 'epoch 2/4 [3/3]' in log and 'epoch 4/4 [3/3]' in log


def test_a_run_outside_the_main_thread_works_without_signals(make_runner):
    runner, failures = make_runner('epochs=1', 'workers=0'), []

    def work():
        try:
            runner.train()
        except BaseException as error:
            failures.append(error)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures and runner.steps_done == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_signals_ask_to_stop_once_and_are_given_back():
    before, asked = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)], []
    with pytest.raises(KeyboardInterrupt), caught(asked.append):
        signal.raise_signal(signal.SIGTERM)
        assert asked == [signal.SIGTERM]
        signal.raise_signal(signal.SIGINT)
    assert asked == [signal.SIGTERM]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


class Diary(Hook):
    """Notes what it is called for, and where the run is then."""

    def __init__(self, notes: list, fails_at: str = ''):
        self.notes, self.fails_at = notes, fails_at
        for name in ('before_train', 'before_epoch', 'before_step', 'after_step', 'after_epoch',
                     'after_train', 'close'):
            setattr(self, name, partial(self.note, name))

    def note(self, name, runner, *arguments):
        self.notes.append((name, dataclasses.astuple(runner.position), runner.steps_done))
        if name == self.fails_at:
            raise RuntimeError(name)


def test_the_loop_is_as_the_docstring_draws_it(make_runner):
    runner = make_runner('global_batch_size=24', 'workers=0', 'checkpoint_interval=1')  # 2 steps
    runner.hooks.append(Diary(notes := []))
    runner.train()
    epochs = [[('before_epoch', (e, 0), 2 * e),
               ('before_step', (e, 0), 2 * e), ('after_step', (e, 1), 2 * e + 1),
               ('before_step', (e, 1), 2 * e + 1), ('after_step', (e, 2), 2 * e + 2),
               ('after_epoch', (e + 1, 0), 2 * e + 2)] for e in (0, 1)]
    assert notes == [('before_train', (0, 0), 0), *epochs[0], *epochs[1],
                     ('after_train', (2, 0), 4), ('close', (2, 0), 4)]
    again = make_runner('global_batch_size=24', 'workers=0')
    again.resume(runner.work_dir / 'epoch_1.pth')
    again.hooks.append(Diary(notes := [], fails_at='after_step'))
    with pytest.raises(RuntimeError, match='after_step'):
        again.train()
    assert [name for name, *_ in notes] == ['before_train', 'before_epoch', 'before_step',
                                            'after_step', 'close']
    assert notes[1][1:] == ((1, 0), 2)


def test_probes_act_before_the_checkpoint_and_hooks_of_the_config_after_it():
    early, own = type('Early', (Hook,), dict(order='early')), type('Own', (Hook,), {})
    late = type('Late', (Hook,), dict(order='late'))
    cfg = Config(dict(log_interval=1, checkpoint_interval=1, save_every=None, keep_checkpoints=None,
                      hooks=[dict(type=late), dict(type=own), dict(type=early)]))
    names = [type(hook).__name__ for hook in build_hooks(cfg)]
    assert names == ['Early', 'PicturesHook', 'MetricsHook', 'HealthHook', 'ProgressHook',
                     'CheckpointHook', 'Own', 'Late']


def test_a_hook_of_mmengine_is_refused_with_the_way_out():
    cfg = Config(dict(log_interval=1, checkpoint_interval=1, save_every=None, keep_checkpoints=None,
                      hooks=[dict(type=mmengine.hooks.EMAHook)]))
    with pytest.raises(UserError, match=r'hooks.0: EMAHook is no hook .*docs/extend/hook.md'):
        build_hooks(cfg)


@pytest.mark.parametrize('name, meant', [
    ('after_train_iter', 'after_step'), ('before_train_epoch', 'before_epoch'),
    ('before_run', 'before_train'), ('after_run', 'close'), ('after_setp', 'after_step'),
    ('after_val_epoch', None), ('before_save_checkpoint', None)])
def test_a_method_that_no_stage_calls_is_refused(name, meant):
    base = type('Base', (Hook,), {name: lambda self, runner, *more: None})
    hook = type('Mine', (base,), dict(after_step=lambda self, runner, outputs: None))
    cfg = Config(dict(log_interval=1, checkpoint_interval=1, save_every=None, keep_checkpoints=None,
                      hooks=[dict(type=hook)]))
    with pytest.raises(UserError, match=f'hooks.0: Mine.{name} is no stage .*one of before_train, '
                                        'before_epoch, .*close') as told:
        build_hooks(cfg)
    assert told.value.nearest == meant


def test_an_order_that_is_none_is_refused():
    hook = type('Whenever', (Hook,), dict(order='whenever'))
    cfg = Config(dict(log_interval=1, checkpoint_interval=1, save_every=None, keep_checkpoints=None,
                      hooks=[dict(type=hook)]))
    with pytest.raises(UserError, match="hooks.0: the order of Whenever is 'whenever'.*early"):
        build_hooks(cfg)
