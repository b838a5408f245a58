"""Figures are compared only where they differ by more than their spread."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.classification.linear_solver import seconds_of_published_epoch
from benchmarks.speed import __main__ as command
from benchmarks.speed import timing
from benchmarks.speed.timing import Case, Result, measure
from openselfsup.evaluation import classifier


def result(ratio, spread, **others) -> Result:
    return Result('name', 'what', 'calls/s', ratio, 1.0, others, ratio, spread, None, None)


@pytest.mark.parametrize('ratio, spread, verdict', [
    (11.4, (9.8, 12.0), '11.4x'), (0.5, (0.4, 0.6), '2.0x slower'),
    (1.2, (0.9, 1.5), 'no difference beyond the spread'),
    (1.2, (1.0, 1.5), 'no difference beyond the spread')])
def test_a_difference_within_the_spread_is_none(ratio, spread, verdict):
    assert result(ratio, spread).verdict == verdict


def test_what_adds_to_a_step_is_given_in_microseconds():
    assert dataclasses.replace(result(0.5, (0.4, 0.6)), microseconds=(90., 80., 120.)
                               ).verdict == '+90 µs each'
    assert dataclasses.replace(result(0.99, (0.9, 1.1)), microseconds=(90., -80., 120.)
                               ).verdict == 'no difference beyond the spread'


def test_a_published_epoch_is_timed(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])  # where the bundled tiles are
    small = functools.partial(classifier.TrainSettings, image_size=32)
    monkeypatch.setattr(classifier, 'TrainSettings', small)
    assert 0 < seconds_of_published_epoch(repeats=1) < 60


class Clock:
    """Stands for time: each piece of work says how long it took."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timing.time, 'perf_counter', lambda: self.now)

    def work(self, seconds):
        seconds = iter(seconds)

        def run():
            self.now += next(seconds)
        return run


def test_ratios_are_taken_pair_by_pair(monkeypatch):
    clock = Clock(monkeypatch)
    # One warm-up each; then the machine slows down threefold in mid-run, and both with it.
    ours = clock.work([9., 1., 1., 1.1, 3., 3.])
    published = clock.work([9., 10., 10., 12., 33., 30.])
    found = measure(Case('n', 'w', ours, published, items=6, calls=1, difference=True), repeats=5)
    assert found.ratio == pytest.approx(10)
    assert found.spread == pytest.approx((10, 11))
    assert found.ours == pytest.approx(6 / 1.1) and found.published == pytest.approx(6 / 12)
    assert found.microseconds[0] == pytest.approx(-1e6 * 10.9 / 6)


def test_ways_take_turns(monkeypatch):
    order = []
    case = Case('n', 'w', lambda: order.append('ours'), lambda: order.append('published'),
                dict(third=lambda: order.append('third')), calls=1)
    found = measure(case, repeats=3)
    assert order == ['ours', 'published', 'third'] * 4
    assert set(found.others) == {'third'}


def test_short_work_is_repeated(monkeypatch):
    clock = Clock(monkeypatch)
    count = []

    def short():
        count.append(1)
        clock.now += timing.TARGET_SECONDS / 20
    found = measure(Case('n', 'w', short, None, items=4), repeats=2)
    assert len(count) == 1 + 1 + 2 * 20
    assert found.ours == pytest.approx(4 * 20 / timing.TARGET_SECONDS)
    assert found.ratio is None and found.verdict == ''


def test_threads_are_given_back():
    before = torch.get_num_threads()
    assert timing.on_threads(1, torch.get_num_threads)() == 1
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not timing.Path('/proc/self/clear_refs').exists(), reason='needs Linux')
def test_peak_memory_sees_what_is_freed_again():
    def take(megabytes):
        return lambda: np.ones(megabytes << 17).sum()
    assert timing.peak_memory(take(200)) == pytest.approx(200, abs=30)
    assert timing.peak_memory(take(1)) < 30


def test_the_command_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out.json'
    monkeypatch.setattr('sys.argv', ['speed', '--only', 'match', '--repeats', '5', '--json',
                                     str(out)])
    command.main()
    figures = json.loads(out.read_text())
    assert {'processor', 'cores', 'git'} <= set(figures['machine'])
    assert set(figures['match']) == {f.name for f in dataclasses.fields(Result)}
    low, high = figures['match']['spread']
    assert 0 < low <= figures['match']['ratio'] <= high
    assert 'overlaps and matchings of 64 pairs' in capsys.readouterr().out


@pytest.mark.parametrize('words, message', [
    (['--only', 'views,nothing'], 'unknown: nothing'), (['--repeats', '3'], 'at least 5')])
def test_the_command_refuses(words, message, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['speed', *words])
    with pytest.raises(SystemExit):
        command.main()
    assert message in capsys.readouterr().err
