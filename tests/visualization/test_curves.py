import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.errors import UserError
from openselfsup.visualization import plot_curves, read_metrics
from openselfsup.visualization.curves import RUN_COLORS, smoothed


@pytest.fixture
def write(tmp_path):
    def write(*lines, name='metrics.jsonl'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line)
                                  for line in lines))
        return path
    return write


def records(count, **fields):
    return [dict(step=10 * i, epoch=i, **{k: v(i) for k, v in fields.items()})
            for i in range(count)]


def test_every_number_becomes_a_point_of_its_curve(write):
    path = write(dict(step=0, epoch=1, iteration=1, lr=0.1, loss=5, my_own_monitor=3),
                 dict(step=10, epoch=1, iteration=11, lr=0.2, loss=4.5),
                 dict(step=20, knn_accuracy=0.4))
    curves = read_metrics(path)
    assert list(curves) == ['lr', 'loss', 'my_own_monitor', 'knn_accuracy']
    assert curves['loss'].steps.tolist() == [0, 10]
    assert curves['loss'].values.tolist() == [5, 4.5]
    assert curves['my_own_monitor'].values.tolist() == [3]
    assert curves['knn_accuracy'].steps.tolist() == [20]


def test_what_is_no_number_is_passed_over(write):
    path = write(dict(step=0, loss=1.0, note='warm-up', done=True, missing=None, per_class=[1, 2]),
                 '{"step": 10, "loss": NaN, "lr": Infinity}', '', 'Traceback', '[1, 2]', '7',
                 dict(loss=99.0), dict(step=20, loss=2.0))
    curves = read_metrics(path)
    assert list(curves) == ['loss']
    assert curves['loss'].values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize('end', ['{"step": 20, "lo', '{"step": 20, "loss": 3', '{"step"', '{'])
def test_a_killed_run_may_leave_its_last_line_unfinished(write, tmp_path, end):
    path = write(*records(2, loss=float), end)
    assert read_metrics(path)['loss'].steps.tolist() == [0, 10]
    assert plot_curves({'killed': path}, tmp_path / 'c.png').stat().st_size > 1000


def test_steps_logged_again_after_a_resume_count_once(write):
    path = write(*records(4, loss=float), dict(step=20, loss=7.0), dict(step=25, loss=8.0))
    curve = read_metrics(path)['loss']
    assert curve.steps.tolist() == [0, 10, 20, 25, 30]
    assert curve.values.tolist() == [0, 1, 7, 8, 3]


def test_a_work_directory_stands_for_its_metrics(write, tmp_path):
    write(*records(2, loss=float), name='run/metrics.jsonl')
    assert list(read_metrics(tmp_path / 'run')) == ['loss']


def test_nothing_to_read_is_the_users_to_mend(write, tmp_path):
    with pytest.raises(UserError, match='no such file'):
        read_metrics(tmp_path / 'absent.jsonl')
    with pytest.raises(UserError, match='no line with a step'):
        read_metrics(write('not JSON', dict(step=3, epoch=1)))


def test_a_key_that_nobody_logged_is_named_with_the_nearest(write, tmp_path):
    path = write(*records(3, loss=float, acc_contrast=float))
    with pytest.raises(UserError, match="did you mean 'acc_contrast'"):
        plot_curves({'run': path}, tmp_path / 'c.png', keys=['loss', 'acc_contrst'])


def test_each_run_is_drawn_in_its_colour(write, tmp_path, picture, count_color):
    low = write(*records(60, loss=lambda i: 1 + (i % 7) / 10), name='low.jsonl')
    high = write(*records(60, loss=lambda i: 2 + (i % 7) / 10), name='high.jsonl')
    one = picture(plot_curves({'low': low}, tmp_path / 'c.png'))
    two = picture(plot_curves({'low': low, 'high': high}, tmp_path / 'c.png'))
    assert count_color(one.pixels, RUN_COLORS[0]) > 300
    assert count_color(one.pixels, RUN_COLORS[1]) == 0
    assert count_color(two.pixels, RUN_COLORS[1]) > 300

    def height(color):  # the mean row of a run's curve, below the legend
        rows, _ = np.nonzero((abs(two.pixels[100:] - [int(color[i:i + 2], 16) for i in (1, 3, 5)])
                              <= 12).all(axis=2))
        return rows.mean()
    assert height(RUN_COLORS[0]) > height(RUN_COLORS[1]) + 50  # the lower loss lies lower


def test_the_smoothed_course_lies_over_the_raw_values(write, tmp_path, picture, count_color):
    noisy = write(*records(200, loss=lambda i: 5 + (-1) ** i), name='noisy.jsonl')
    smooth = picture(plot_curves({'run': noisy}, tmp_path / 'c.png')).pixels
    raw = picture(plot_curves({'run': noisy}, tmp_path / 'c.png', smooth=0)).pixels

    def spread(pixels):  # rows over which the full colour of the thick line extends
        rows, _ = np.nonzero((abs(pixels[100:] - [0, 0x72, 0xC6]) <= 12).all(axis=2))
        return np.ptp(np.percentile(rows, [5, 95]))
    assert spread(smooth) < 0.2 * spread(raw)
    pale = ((smooth[..., 2] > smooth[..., 0] + 30) & (smooth[..., 0] > 60)).sum()
    assert pale > 5000  # the raw values behind it


def test_a_schedule_is_not_smoothed(write, tmp_path, picture):
    def drop(i):
        return 1.0 if i < 100 else 0.1

    def columns_between(key):
        """Columns of the curve at heights strictly between the two levels."""
        path = write(*records(200, **{key: drop}), name=f'{key}.jsonl')
        pixels = picture(plot_curves({'run': path}, tmp_path / 'c.png', smooth=0.05)).pixels[90:]
        rows, columns = np.nonzero((abs(pixels - [0, 0x72, 0xC6]) <= 40).all(axis=2))
        middle = (rows > rows.min() + 30) & (rows < rows.max() - 30)
        return np.ptp(columns[middle])
    assert columns_between('lr') < 6 < columns_between('some_monitor')


def test_a_row_holds_three_panels(write, tmp_path, picture):
    path = write(*records(3, **{f'monitor_{i}': float for i in range(4)}))
    keys = [f'monitor_{i}' for i in range(4)]
    shapes = [picture(plot_curves({'run': path}, tmp_path / 'c.png', keys=keys[:n])).pixels.shape
              for n in (1, 2, 3, 4)]
    assert shapes[0][0] == shapes[1][0] == shapes[2][0] < shapes[3][0]
    assert shapes[0][1] < shapes[1][1] < shapes[2][1] == shapes[3][1]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.floats(0, 0.3))
@settings(max_examples=50)
def test_smoothing_stays_within_the_values(values, fraction):
    values = np.array(values)
    result = smoothed(values, fraction)
    assert result.shape == values.shape
    assert values.min() - 1e-9 <= result.min() and result.max() <= values.max() + 1e-9
    np.testing.assert_allclose(smoothed(values, 0.0), values)


def test_smoothing_has_no_lag():
    ramp = np.arange(100.0)
    np.testing.assert_allclose(smoothed(ramp, 0.02)[10:-10], ramp[10:-10])
    impulse = np.zeros(101)
    impulse[50] = 1
    result = smoothed(impulse, 0.03)
    np.testing.assert_allclose(result, result[::-1])
    assert result.argmax() == 50 and result.max() < 0.2
