"""Curves of one or several runs, from their ``metrics.jsonl``."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..errors import UserError, nearest, shown
from ..files import atomic_file
from .canvas import DPI, HAIRLINE, INK, SOFT_INK, shorten

RUN_COLORS = ('#0072C6', '#F07D00', '#00967D', '#C03A7B', '#6A51A3', '#8C6D31', '#333333')
COUNTERS = ('step', 'epoch', 'iteration')
#: Schedules are exact: smoothing would only blur their corners.
EXACT = ('lr', 'weight_decay', 'momentum', 'loss_scale')
FEW_POINTS = 30


class Curve(NamedTuple):
    """One quantity of a run: optimiser steps, ascending, and its values."""

    steps: np.ndarray
    values: np.ndarray


def read_metrics(path: str | Path) -> dict[str, Curve]:
    """Read the numbers that a run logged.

    Every line that is a JSON object with a ``step`` counts; each of its numeric fields is a
    point of that field's curve. Other lines are passed over, also one that a killed run left
    unfinished. Steps that were logged again after a resume replace the earlier ones. Values
    that are not finite are left out.

    Args:
        path: a ``metrics.jsonl``, or a work directory that holds one.

    Returns:
        The curves by key, in the order in which the keys first appear; the counters
        ``step``, ``epoch`` and ``iteration`` are none of them.

    Raises:
        UserError: there is no such file, or nothing in it can be plotted.
    """
    path = Path(path)
    path = path / 'metrics.jsonl' if path.is_dir() else path
    if not path.is_file():
        raise UserError('no such file', where=str(path),
                        expected='a metrics.jsonl, or the work directory of a run')
    points: dict[str, dict[float, float]] = {}
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        fields = _numbers(line)
        for key, value in fields.items():
            if 'step' in fields and key not in COUNTERS:
                points.setdefault(key, {})[fields['step']] = value
    if not points:
        raise UserError('holds no line with a step and a number', where=str(path),
                        expected='lines such as {"step": 50, "loss": 5.1}')
    curves = {}
    for key, values in points.items():
        steps = sorted(values)
        curves[key] = Curve(np.array(steps), np.array([values[step] for step in steps]))
    return curves


def plot_curves(runs: Mapping[str, str | Path], out: str | Path,
                keys: Sequence[str] | None = None, smooth: float = 0.02) -> Path:
    """Plot what runs logged, a panel for each quantity and a colour for each run.

    Raw values are drawn thin and pale, their smoothed course on top of them; learning rates
    and the like are drawn as they are.

    Args:
        runs: names of the runs and their ``metrics.jsonl`` or work directories.
        out: the PNG to write.
        keys: what to plot, in this order; default is everything: losses first, then the
            monitors, learning rate and throughput.
        smooth: width (standard deviation) of the smoothing window as a fraction of a curve's
            points.

    Returns:
        The path of the PNG.

    Raises:
        UserError: a file cannot be read, or a run logged nothing called like one of ``keys``.
    """
    curves = {name: read_metrics(path) for name, path in runs.items()}
    known = list(dict.fromkeys(key for run in curves.values() for key in run))
    for key in keys or ():
        if key not in known:
            raise UserError(f"no run logged '{key}'", expected='one of ' + ', '.join(known),
                            nearest=nearest(key, known))
    keys = list(keys) if keys else sorted(known, key=_rank)

    columns = min(3, len(keys))
    rows = math.ceil(len(keys) / columns)
    width = 0.35 + 3.05 * columns
    handles = _legend_handles(curves, keys)
    longest = max(len(str(handle.get_label())) for handle in handles)
    legend_columns = max(1, int(width / (0.55 + 0.066 * longest)))
    header = 0.1 + 0.17 * math.ceil(len(handles) / legend_columns)
    height = header + 2.05 * rows + 0.3
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.55 / width, right=1 - 0.12 / width, bottom=0.4 / height,
                           top=1 - (header + 0.3) / height, wspace=0.27, hspace=0.4)
    figure.legend(handles=handles, ncols=legend_columns, loc='upper left', fontsize=7,
                  bbox_to_anchor=(0.0, 1 - 0.05 / height), frameon=False, handlelength=1.6,
                  labelcolor=INK, columnspacing=1.5)
    for number, key in enumerate(keys):
        panel = figure.add_subplot(rows, columns, number + 1)
        for color, run in zip(itertools.cycle(RUN_COLORS), curves.values()):
            if key in run:
                _draw(panel, key, run[key], color, smooth)
        _dress(panel, key, lowest=number + columns >= len(keys))
    with atomic_file(out) as file:
        figure.savefig(file, dpi=DPI, format='png', metadata={'Software': None})
    return Path(out)


def smoothed(values: np.ndarray, fraction: float) -> np.ndarray:
    """Average each value with its neighbours under a Gaussian window, without lag.

    Args:
        values: [N].
        fraction: standard deviation of the window as a fraction of N; at the ends the window
            is cut off and its remainder renormalised.

    Returns:
        [N].
    """
    sigma = max(fraction * len(values), 1e-6)
    reach = min(len(values) - 1, math.ceil(3 * sigma))
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(np.stack([values, np.ones_like(values)]), ((0, 0), (reach, reach)))
    total, weight = (np.convolve(row, window, mode='valid') for row in padded)
    return total / weight


def _numbers(line: str) -> dict[str, float]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        return {}
    if not isinstance(fields, dict):
        return {}
    return {key: float(value) for key, value in fields.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
            and math.isfinite(value)}


def _rank(key: str) -> tuple[int, str]:
    if key == 'loss':
        return 0, key
    if key.startswith('loss_') and key not in EXACT:
        return 1, key
    return (3 if key in EXACT else 4 if key in ('tiles_per_s', 'data_wait') else 2), key


def _is_smoothed(key: str, curve: Curve) -> bool:
    return key not in EXACT and len(curve.steps) > FEW_POINTS


def _draw(panel: Axes, key: str, curve: Curve, color: str, smooth: float) -> None:
    steps, values = curve
    if _is_smoothed(key, curve):
        panel.plot(steps, values, color=color, linewidth=0.5, alpha=0.35)
        panel.plot(steps, smoothed(values, smooth), color=color, linewidth=1.3)
    else:
        marker = 'o' if len(steps) <= FEW_POINTS and key not in EXACT else None
        panel.plot(steps, values, color=color, linewidth=1.1, marker=marker, markersize=2.4)


def _dress(panel: Axes, key: str, lowest: bool) -> None:
    panel.set_title(key, fontsize=7.5, color=INK, loc='left', fontweight='bold', pad=4,
                    parse_math=False)
    panel.grid(color=HAIRLINE, linewidth=0.4)
    panel.set_axisbelow(True)
    panel.spines[['top', 'right']].set_visible(False)
    panel.spines[['left', 'bottom']].set(color=SOFT_INK, linewidth=0.5)
    panel.tick_params(labelsize=6, colors=SOFT_INK, width=0.5, length=2)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.yaxis.set_major_formatter(lambda value, _: f'{value:g}')
    if lowest:
        panel.set_xlabel('optimiser step', fontsize=6.5, color=SOFT_INK, labelpad=2)


def _legend_handles(curves: Mapping[str, Mapping[str, Curve]],
                    keys: Sequence[str]) -> list[Line2D]:
    handles = [Line2D([], [], color=color, linewidth=1.6, label=shorten(shown(name), 40))
               for color, name in zip(itertools.cycle(RUN_COLORS), curves)]
    if any(_is_smoothed(key, run[key]) for run in curves.values() for key in keys if key in run):
        handles.append(Line2D([], [], color=SOFT_INK, alpha=0.6, linewidth=0.5,
                              label='raw values'))
    return handles
