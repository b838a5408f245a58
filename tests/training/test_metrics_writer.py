"""Numbers of a run on the disk: lines of JSON and TensorBoard's events of the same steps."""

import json
import logging

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from openselfsup.training.metrics_writer import METRICS, MetricsWriter, forget_after

LOGGER = logging.getLogger('openselfsup')


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_of_steps_that_will_be_repeated_are_forgotten(tmp_path):
    path = tmp_path / METRICS
    rows = [json.dumps(dict(step=i)) for i in range(1, 6)]
    path.write_text('\n'.join(rows) + '\n{"step": 6, "lo')
    forget_after(path, 3)
    assert [row['step'] for row in lines(path)] == [1, 2, 3]
    forget_after(tmp_path / 'none.jsonl', 3)
    assert not (tmp_path / 'none.jsonl').exists()


def test_a_run_that_goes_on_writes_each_step_once_in_both_files(tmp_path):
    first = MetricsWriter(tmp_path, LOGGER, 0, 'metrics.json', 'iteration')
    for step in (1, 2, 3):
        first.write(dict(iteration=step, loss=1 / step))
    second = MetricsWriter(tmp_path, LOGGER, 2, 'metrics.json', 'iteration')
    second.write(dict(iteration=3, loss=7.0))
    found = lines(tmp_path / 'metrics.json')
    assert found == [dict(iteration=1, loss=1.0), dict(iteration=2, loss=0.5),
                     dict(iteration=3, loss=7.0)]
    events = EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    assert events.Tags()['scalars'] == ['loss']  # the step is where a scalar stands
    assert [(e.step, e.value) for e in events.Scalars('loss')] == [(1, 1.0), (2, 0.5), (3, 7.0)]


def test_lines_are_json(tmp_path):
    MetricsWriter(tmp_path, LOGGER, 0).write(dict(step=1, loss=0.5, grad_norm=float('inf'),
                                                  other=float('nan')))
    assert (tmp_path / METRICS).read_text() == '{"step": 1, "loss": 0.5}\n'


def test_numbers_are_short_and_counts_stay_whole(tmp_path):
    MetricsWriter(tmp_path, LOGGER, 0).write(dict(step=50, loss=1 / 3, corrupt_tiles=0))
    assert (tmp_path / METRICS).read_text() == (
        '{"step": 50, "loss": 0.3333333, "corrupt_tiles": 0}\n')
