"""The line of progress on a terminal and in a log, and averages that are fetched late."""

import io
import logging
import math

import pytest
import torch
from rich.console import Console

from openselfsup.training import logs, progress
from openselfsup.training.progress import Meter, ProgressLine, describe, pace


def test_averages_are_over_the_steps_that_had_a_value():
    meter = Meter()
    meter.add(dict(loss=torch.tensor(1.0), rare=torch.tensor(5)))
    meter.add(dict(loss=torch.tensor(2.0)))
    found = meter.take(dict(rank=torch.tensor(7.0)))
    assert found.values == dict(loss=1.5, rare=5.0, rank=7.0) and found.steps == 2
    assert found.seconds > 0
    meter.add(dict(loss=torch.tensor(4.0)))
    assert meter.take().values == dict(loss=4.0)


def test_a_step_that_a_loss_scale_leaves_out_does_not_count_for_norms():
    meter = Meter()
    for norm in (math.inf, 1., math.nan, 3.):
        meter.add(dict(grad_norm=torch.tensor(norm)))
    assert meter.take().values == dict(grad_norm=2.)
    meter.add(dict(grad_norm=torch.tensor(math.inf)))
    assert math.isnan(meter.take().values['grad_norm'])


def test_numbers_are_told_in_one_form():
    assert describe(dict(loss=1.23456, loss_dice=0.5, lr=0.00123456, images_per_s=12.34,
                         tiles_per_s=1234.5, data_wait=0.257)) == (
        'loss 1.2346  loss_dice 0.5000  lr 0.00123  12.3 images/s  1234 tiles/s  wait 26 %')
    assert [pace(n) for n in (0.04, 0.61, 9.94, 9.96, 10.4)] == [
        '0.0 tiles/s', '0.6 tiles/s', '9.9 tiles/s', '10 tiles/s', '10 tiles/s']


@pytest.fixture
def terminal(monkeypatch, request):
    """A console that is a terminal, or not, and what is written to it."""
    console = Console(file=io.StringIO(), force_terminal=request.param, width=120)
    monkeypatch.setattr(logs, 'CONSOLE', console)
    monkeypatch.setattr(progress, 'CONSOLE', console)
    yield console
    for handler in list(logging.getLogger('openselfsup').handlers):
        logging.getLogger('openselfsup').removeHandler(handler)


def run(folder) -> str:
    """Take four steps; return the log file."""
    logger = logs.build_logger(folder / 'train.log')
    with ProgressLine(logger, 4) as line:
        line.open('epoch 1/1', 4)
        for step in range(4):
            line.advance()
            if step % 2:
                line.record(f'epoch 1/1 [{step + 1}/4]', dict(loss=0.25 * step))
        logger.warning('something else')
    return (folder / 'train.log').read_text()


@pytest.mark.parametrize('terminal', [True], indirect=True)
def test_a_terminal_shows_one_live_line(terminal, tmp_path):
    written = run(tmp_path)
    shown = terminal.file.getvalue()
    assert 'epoch 1/1' in shown and '4/4' in shown and 'loss 0.7500  ETA 0:00:00' in shown
    assert 'epoch 1/1 [2/4]' not in shown and 'something else' in shown
    assert 'INFO epoch 1/1 [2/4]  loss 0.2500  ETA' in written
    assert 'WARNING something else' in written


@pytest.mark.parametrize('terminal', [False], indirect=True)
def test_elsewhere_the_lines_of_the_log_say_the_same(terminal, tmp_path):
    run(tmp_path)
    lines = terminal.file.getvalue().splitlines()
    assert [line[:28] for line in lines] == ['epoch 1/1 [2/4]  loss 0.2500', 'epoch 1/1 [4/4]  '
                                             'loss 0.7500', 'something else']


def test_the_time_left_is_that_of_this_runs_pace(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, 'perf_counter', lambda: now[0])
    line = ProgressLine(logging.getLogger('openselfsup'), total=100, done=60)
    now[0] = 20.0
    line.advance(10)
    assert line.time_left().total_seconds() == 60
