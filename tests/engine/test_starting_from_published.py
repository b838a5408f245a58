"""A published training checkpoint gives all its weights to a new run of ours."""

import logging

import pytest
import torch
from small_runs import DEMO, SMALL

from openselfsup.checkpoints import save, training_state_to_published
from openselfsup.checkpoints.upgrading import upgrade
from openselfsup.engine.config import load_config
from openselfsup.engine.runner import Runner
from openselfsup.errors import UserError
from openselfsup.training.launch import Launch

LINEAR = ['model.matching_neck.linear=True', 'workers=0']


def runner(work_dir, *options):
    return Runner(load_config(DEMO, [*SMALL, *LINEAR, *options]),
                  Launch(0, 1, torch.device('cpu')), work_dir)


@pytest.fixture
def published(tmp_path):
    """A file as published code writes it, and its weights under our names."""
    run = runner(tmp_path / 'first')
    for tensor in run.module.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1.5)
    run.module.queue.filled.fill_(40)  # published queues count as full
    run.module.queue_dense.filled.fill_(40)
    state = run.module.state_dict()
    content = dict(meta=dict(epoch=200, iter=9), state_dict=training_state_to_published(state),
                   optimizer=dict(state={}, param_groups=[]))
    save(content, tmp_path / 'plm.pth')
    return tmp_path / 'plm.pth', state


@pytest.mark.parametrize('upgraded', [False, True])
def test_all_weights_are_taken_and_the_run_begins_at_its_start(published, tmp_path, caplog,
                                                               upgraded):
    path, state = published
    if upgraded:
        upgrade(path, tmp_path / 'ours.pth')
        path = tmp_path / 'ours.pth'
    run = runner(tmp_path / 'run')
    with caplog.at_level(logging.INFO, logger=run.logger.name):
        run.logger.propagate = True
        run.resume(path)
    assert f'started from all weights of {path}' in caplog.text
    found = run.module.state_dict()
    assert all(value.equal(found[name]) for name, value in state.items())
    assert (run.position.epoch, run.steps_done) == (0, 0) and not run.optimizer.state


def test_another_method_or_shape_is_refused(published, tmp_path):
    path, _ = published
    for option, words in [
            ('model.queue_len=41', r'mismatched: queue.vectors \(40x128, the model has 41x128\)'),
            ('model.matching_neck={"type": "AttentionMatchingNeck", "channels": 128, '
             '"mid_channels": 8}', 'missing: encoder_q.matching_neck.attention')]:
        with pytest.raises(UserError, match=f'weights of a PLM of another model; {words}'):
            runner(tmp_path / 'run', option).resume(path)
    save(dict(state_dict={'backbone.conv1.weight': torch.ones(1)}, meta={}), path)
    with pytest.raises(UserError, match="no run can go on from this file: its 'meta' lacks"):
        runner(tmp_path / 'run').resume(path)
