"""Is one better than another? Paired differences of scores, with bootstrap intervals.

Two classifiers that answer the same tiles err on the same hard ones. A resample that draws the
same cases for both therefore tells their difference far better than two intervals beside each
other (Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 8 and 16).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .metrics import SCORES, Weighed, check_head, confusion, interval


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of two, with its uncertainty.

    Attributes:
        value: of the data as they are, averaged over the runs.
        low, high: 95 % percentile interval over resampled cases.
        sd: deviation between the runs (seeds), of a difference between those of the same place;
            NaN for a single one, and for a difference of unequally many.
    """

    value: float
    low: float
    high: float
    sd: float

    @property
    def above(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high < 0


def stratified_resamples(labels: np.ndarray, cases: np.ndarray, count: int = 2000,
                         seed: int = 0) -> np.ndarray:
    """Return how often each resample drew each tile, (1 + count, N); row 0 is all ones.

    Whole cases are drawn, since tiles of one case are not independent, and as many of each
    class as there are: a rare class is in every resample. A case belongs to the class that most
    of its tiles have, the smaller one of two that are equal. Of a class with a single case its
    tiles are drawn, which says nothing of other cases.

    Args:
        labels: int64 array of shape (N,).
        cases: case (patient, slide) of each tile, shape (N,), any values that can be sorted.
        count: number of resamples.
        seed: the same seed draws the same resamples.
    """
    case, stratum = _strata(labels, cases)
    weights, rng = np.ones((1 + count, len(labels))), np.random.default_rng(seed)
    for c in np.unique(stratum):
        tiles = np.flatnonzero(stratum[case] == c)
        _, unit = np.unique(case[tiles], return_inverse=True)
        if not unit.any():
            unit = np.arange(len(tiles))
        units = int(unit.max()) + 1
        weights[1:, tiles] = rng.multinomial(units, np.full(units, 1 / units), count)[:, unit]
    return weights


def lone_classes(labels: np.ndarray, cases: np.ndarray) -> list[int]:
    """Return the classes that a single case is of: their intervals tell nothing of other cases.

    Args:
        labels, cases: as in :func:`stratified_resamples`.
    """
    classes = np.unique(labels)
    _, stratum = _strata(labels, cases)
    return classes[np.bincount(stratum, minlength=len(classes)) == 1].tolist()


def _strata(labels: np.ndarray, cases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each tile's case, and the class of each case among those there are."""
    _, case = np.unique(cases, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    tiles = np.zeros((int(case.max()) + 1, len(classes)), int)
    np.add.at(tiles, (case, label), 1)
    return case, tiles.argmax(1)


def scored(labels: np.ndarray, runs: Sequence[np.ndarray], weights: np.ndarray,
           name: str = 'balanced_accuracy') -> np.ndarray:
    """Return a score of each run under each weighting, (runs, R).

    Args:
        labels: int64 array of shape (N,).
        runs: probabilities (N, C) of each run, such as one pretraining seed.
        weights: of the tiles, (R, N), as :func:`stratified_resamples` draws them.
        name: of the score, one of :data:`~openselfsup.evaluation.metrics.SCORES`.

    Raises:
        UserError: there is no such score, or a run's answers cannot be scored.
    """
    if name not in SCORES:
        raise UserError(f"no score is called '{name}'", expected='one of ' + ', '.join(SCORES))
    found = []
    for probabilities in runs:
        check_head(labels, probabilities)
        counts = confusion(labels, probabilities, weights)
        found.append(SCORES[name](Weighed(labels, probabilities, weights, counts)))
    return np.stack(found)


def estimate(values: np.ndarray, others: np.ndarray | None = None) -> Estimate:
    """Return the mean over runs of a score, or of its difference from another's.

    Args:
        values: (runs, 1 + R) of :func:`scored`; column 0 is the data as they are.
        others: (other runs, 1 + R) of the same resamples, or None.

    Raises:
        ValueError: the two were not scored under the same number of resamples.
    """
    if others is not None and values.shape[1] != others.shape[1]:
        raise ValueError(f'{values.shape[1]} and {others.shape[1]} resamples make no pairs')
    if others is None:
        mean, runs = values.mean(0), values[:, 0]
    else:
        mean = values.mean(0) - others.mean(0)
        runs = values[:, 0] - others[:, 0] if len(values) == len(others) else np.empty(0)
    sd = float(runs.std(ddof=1)) if len(runs) > 1 else float('nan')
    return Estimate(float(mean[0]), *interval(mean[1:]), sd)


def compare(labels: np.ndarray, cases: np.ndarray, answers: Mapping[str, Sequence[np.ndarray]],
            name: str = 'balanced_accuracy', count: int = 2000, seed: int = 0
            ) -> tuple[dict[str, Estimate], dict[tuple[str, str], Estimate]]:
    """Return the score of each of several classifiers, and every difference of two.

    Args:
        labels, cases, name, count, seed: as in :func:`stratified_resamples` and :func:`scored`.
        answers: probabilities (N, C) of each run, by name.

    Returns:
        Scores by name, and differences (first minus second) by pair of names.
    """
    weights = stratified_resamples(labels, cases, count, seed)
    values = {key: scored(labels, runs, weights, name) for key, runs in answers.items()}
    return ({key: estimate(found) for key, found in values.items()},
            {(a, b): estimate(values[a], values[b])
             for a in values for b in values if a != b})
