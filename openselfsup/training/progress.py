"""How a run gets on: averages of its steps, and one line that shows them."""

import datetime
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from .. import distributed
from .logs import CONSOLE


@dataclass
class Averages:
    """What the steps since the last look returned.

    Attributes:
        values: mean of each value over those steps that had it, and over ranks.
        steps: how many steps that were.
        seconds: how long they took together.
    """

    values: dict[str, float]
    steps: int
    seconds: float


class Meter:
    """Averages what steps return; nothing is fetched from the device between two looks.

    Norms of gradients are averaged over steps in which they were finite: a loss scale that was too
    large makes them infinite, and the step is left out.
    """

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}
        self.steps, self._since = 0, time.perf_counter()

    def add(self, outputs: Mapping[str, Tensor]) -> None:
        """Add the scalars of one step, on whatever device they are."""
        self.steps += 1
        for key, value in outputs.items():
            value = value.detach().float()
            one: int | Tensor = 1
            if key.startswith('grad_norm'):
                one = torch.isfinite(value).float()
                value = value.nan_to_num(0., 0., 0.)
            self._sums[key] = self._sums[key] + value if key in self._sums else value
            self._counts[key] = self._counts.get(key, 0) + one

    def take(self, more: Mapping[str, Tensor] | None = None) -> Averages:
        """Return the averages and begin anew; all ranks call it with the same names.

        Args:
            more: further scalars of each rank, as they are now.
        """
        means = {k: self._sums[k] / self._counts[k] for k in sorted(self._sums)} | dict(more or {})
        values = distributed.all_reduce_mean(torch.stack(list(means.values()))).tolist()
        now = time.perf_counter()
        found = Averages(dict(zip(means, values)), self.steps, now - self._since)
        self._sums, self._counts, self.steps, self._since = {}, {}, 0, now
        return found


class ProgressLine:
    """Says where a run is: a live line on a terminal, lines of the log elsewhere.

    Args:
        logger: takes a line with each record.
        total: steps of the whole run.
        done: steps that were taken before, by a run that this one goes on from.
    """

    def __init__(self, logger: logging.Logger, total: int, done: int = 0):
        self.logger, self.total, self.first, self.done = logger, total, done, done
        self._began, self._numbers = time.perf_counter(), ''
        self._live: Progress | None = None

    def __enter__(self) -> 'ProgressLine':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, label: str, steps: int, done: int = 0) -> None:
        """Begin a live line on a terminal; the one before it is left standing.

        Args:
            label: what the line is about, such as 'epoch 1/200'.
            steps: that it will count.
            done: of them.
        """
        self.close()
        if not (CONSOLE.is_terminal and distributed.is_main()):
            return
        self._live = Progress(
            TextColumn('{task.description}'), BarColumn(bar_width=16),
            TextColumn('{task.completed}/{task.total}'), TextColumn('{task.fields[numbers]}'),
            console=CONSOLE, refresh_per_second=2)
        self._task = self._live.add_task(label, total=steps, completed=done, numbers='')
        self._live.start()

    def advance(self, steps: int = 1) -> None:
        """Count steps that were taken."""
        self.done += steps
        self._show(steps)

    def record(self, position: str, values: Mapping[str, float]) -> None:
        """Tell new numbers, on rank 0.

        Args:
            position: where the run is, such as 'iteration 20/5000'.
            values: losses, lr and the like; see :func:`describe`.
        """
        self._numbers = describe(values)
        self._show()
        if distributed.is_main():
            self.logger.info('%s  %s  ETA %s', position, self._numbers, self.time_left(),
                             extra=dict(live=True))

    def time_left(self) -> datetime.timedelta:
        """Return how long the rest takes at the pace of this run so far."""
        seconds = time.perf_counter() - self._began
        return datetime.timedelta(seconds=round(
            seconds / max(self.done - self.first, 1) * (self.total - self.done)))

    def _show(self, steps: int = 0) -> None:
        if self._live is not None:
            self._live.update(self._task, advance=steps,
                              numbers=f'{self._numbers}  ETA {self.time_left()}'.strip())

    def close(self) -> None:
        """Leave the live line standing and give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def describe(values: Mapping[str, float]) -> str:
    """Return numbers as text: losses, learning rate, pace, share of time waited for data."""
    forms = dict(lr='lr {:.3g}'.format, tiles_per_s=pace, images_per_s='{:.1f} images/s'.format,
                 data_wait='wait {:.0%}'.format)
    return '  '.join(forms[key](value) if key in forms else f'{key} {value:.4f}'
                     for key, value in values.items()).replace('%', ' %')


def pace(tiles_per_s: float) -> str:
    """Return tiles per second as text, with a decimal where they are few."""
    return f'{tiles_per_s:.{0 if tiles_per_s >= 9.95 else 1}f} tiles/s'
