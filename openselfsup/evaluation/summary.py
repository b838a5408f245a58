"""From rows to lines of the summary: mean, spread and interval over the seeds."""

from collections.abc import Mapping, Sequence

import numpy as np

from .metrics import SCORES, interval
from .results import Row, Summary


def summarise(rows: Sequence[Row], draws: Mapping[int, Mapping[str, np.ndarray]]) -> list[Summary]:
    """Return one line for all rows that differ only in the seed.

    Args:
        rows: what was found.
        draws: by the index of a row, the bootstrap values of each score, float64 (R,). All rows
            share the resamples: draw by draw, the mean over seeds is resampled.
    """
    groups: dict[tuple[str, str, float, bool], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault((row.protocol, row.features, row.fraction, row.honest), []).append(i)
    lines = []
    for (protocol, features, fraction, honest), members in groups.items():
        scores: dict[str, dict[str, float | None]] = {
            name: dict(mean=None, low=None, high=None, sd=None) for name in SCORES}
        diverged = [rows[i].seed for i in members if rows[i].diverged]
        for name in () if diverged else SCORES:
            values = np.array([rows[i].scores[name]['value'] for i in members], float)
            low, high = interval(np.mean([draws[i][name] for i in members], 0))
            scores[name] = dict(mean=float(np.mean(values)), low=low, high=high,
                                sd=float(np.std(values, ddof=1)) if len(values) > 1 else None)
        lines.append(Summary(protocol, features, fraction, honest,
                             [rows[i].seed for i in members], scores, diverged))
    return lines
