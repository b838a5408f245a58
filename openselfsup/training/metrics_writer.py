"""The numbers of a run: lines of JSON, and TensorBoard's scalars.

They watch the run and never end it: what a full disk does not take is written later.
"""

import json
import logging
import math
from pathlib import Path

from ..files import write_text
from .journal import Events, Journal

METRICS = 'metrics.jsonl'


class MetricsWriter:
    """Writes records of a run into its folder, on rank 0.

    Args:
        folder: of the run; TensorBoard's events go to ``tensorboard`` in it.
        logger: is told when the disk is full.
        done: steps that are done. Records of later ones, which a run that goes on repeats, are
            dropped, and so is a line that a killed process left half written.
        name: of the file of lines.
        counter: field of a record that counts steps.
    """

    def __init__(self, folder: Path, logger: logging.Logger, done: int, name: str = METRICS,
                 counter: str = 'step'):
        self.counter = counter
        forget_after(folder / name, done, counter)
        self._lines = Journal(folder / name, logger)
        self._events = Events(folder / 'tensorboard', done + 1, logger)

    def write(self, record: dict[str, float]) -> None:
        """Write a line, and all in it but the step as scalars of that step.

        What is not finite is left out: JSON has no such numbers.
        """
        record = {name: value for name, value in record.items() if math.isfinite(value)}
        line = json.dumps({name: _round(value) for name, value in record.items()})
        self._lines.add(f'{line}\n'.encode())
        self._events.add_scalars({name: value for name, value in record.items()
                                  if name != self.counter}, int(record[self.counter]))


def forget_after(path: Path, done: int, counter: str = 'step') -> None:
    """Drop lines of later steps, and a line that a killed process left half written."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            if json.loads(line)[counter] <= done:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue
    write_text(path, ''.join(line + '\n' for line in kept))


def _round(value: float) -> float:
    return value if isinstance(value, int) else float(f'{value:.7g}')
