import json
import logging
import types

import pytest
import torch

from openselfsup.engine.hooks import CheckpointHook, HealthHook
from openselfsup.engine.hooks.metrics import forget_after
from openselfsup.errors import UserError


def health(records, caplog, **limits):
    hook = HealthHook(**limits)
    logger = logging.getLogger('health')
    for record in records:
        runner = types.SimpleNamespace(record=record, logger=logger)
        hook.after_train_iter(runner, 0)
        hook.after_train_iter(runner, 1)  # the same record is not counted twice
    return [r.getMessage() for r in caplog.records]


def test_collapse_raises_one_visible_warning(caplog):
    records = [dict(step=i, feature_std=0.01, effective_rank=50.0) for i in range(6)]
    messages = health(records, caplog)
    assert len(messages) == 1 and 'COLLAPSE' in messages[0] and 'feature_std is 0.01' in messages[0]


def test_a_healthy_or_recovering_run_is_left_alone(caplog):
    bad, good = dict(effective_rank=1.1), dict(effective_rank=40.0)
    records = [dict(step=i, **r) for i, r in enumerate([bad, bad, good, bad, bad, good])]
    assert health(records, caplog) == []


def test_lines_of_steps_that_will_be_repeated_are_forgotten(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    rows = [json.dumps(dict(step=i)) for i in range(1, 6)]
    path.write_text('\n'.join(rows) + '\n{"step": 6, "lo')
    forget_after(path, 3)
    assert [json.loads(r)['step'] for r in path.read_text().splitlines()] == [1, 2, 3]
    forget_after(tmp_path / 'none.jsonl', 3)
    assert not (tmp_path / 'none.jsonl').exists()


def test_a_full_disk_does_not_end_a_run_that_can_go_on(make_runner, monkeypatch, capsys):
    from openselfsup import checkpoints
    runner = make_runner('checkpoint_interval=1')
    real, calls = checkpoints.save, []

    def full_once(state, path):
        calls.append(path)
        if len(calls) == 1:
            raise UserError('no space left on the device', where=str(path))
        real(state, path)

    monkeypatch.setattr(checkpoints, 'save', full_once)
    runner.train()
    assert 'training goes on' in capsys.readouterr().out
    assert len(calls) == 2 and torch.load(calls[-1], weights_only=True)['meta']['epoch'] == 2


def test_a_full_disk_at_the_end_is_an_error(make_runner, monkeypatch):
    from openselfsup import checkpoints

    def full(state, path):
        raise UserError('no space left on the device', where=str(path))

    runner = make_runner('epochs=1')
    monkeypatch.setattr(checkpoints, 'save', full)
    with pytest.raises(UserError, match='no space left'):
        runner.train()


def test_signals_are_given_back_after_a_run():
    import signal
    before = signal.getsignal(signal.SIGTERM)
    hook, runner = CheckpointHook(), types.SimpleNamespace()
    hook.before_run(runner)
    assert signal.getsignal(signal.SIGTERM) is not before
    hook.after_run(runner)
    assert signal.getsignal(signal.SIGTERM) is before
