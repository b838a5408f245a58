"""Scores of a classification, and bootstrap intervals around them.

Every score is computed under weights of the tiles, so that one implementation serves the
plain value (all weights 1) and a thousand resamples at once (how often each tile was drawn).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UserError

BINS = 15
_CHUNK = 100  # resamples at a time: bounds the memory at _CHUNK x N weights


@dataclass(frozen=True)
class Weighed:
    """N tiles of C classes under R weightings: what a score is computed from.

    Attributes:
        labels: int64 array of shape (N,), the true classes in 0..C-1.
        probabilities: array of shape (N, C), rows sum to 1.
        weights: array of shape (R, N), at least 0.
        confusion: summed weights, shape (R, C, C), indexed ``[r, true class, predicted class]``.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    weights: np.ndarray
    confusion: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Weight of each class that was recognised, (R, C)."""
        return np.einsum('rcc->rc', self.confusion)

    @property
    def truth(self) -> np.ndarray:
        """Weight of each true class, (R, C)."""
        return self.confusion.sum(2)

    @property
    def predicted(self) -> np.ndarray:
        """Weight of each predicted class, (R, C)."""
        return self.confusion.sum(1)


#: Scores that need an order of the tiles for each class, and no answer.
RANKING = frozenset(('auroc', 'mean_average_precision'))
#: Every score by name, in the order of the tables. Each maps :class:`Weighed` to (R,) values.
SCORES: dict[str, Callable[[Weighed], np.ndarray]] = {}


def metric(function: Callable[[Weighed], np.ndarray]) -> Callable[[Weighed], np.ndarray]:
    """Add a score under the name of its function; results, tables and intervals then have it.

    Raises:
        UserError: another function has that name already; the same one may be loaded anew.
    """
    known = SCORES.get(function.__name__)
    if known and (known.__module__, known.__qualname__) != (function.__module__,
                                                            function.__qualname__):
        raise UserError(f"there is a score '{function.__name__}' already",
                        where=f'{function.__module__}.{function.__qualname__}',
                        expected=f'a name other than {", ".join(SCORES)}')
    SCORES[function.__name__] = function
    return function


@metric
def accuracy(tiles: Weighed) -> np.ndarray:
    """Share of the tiles whose class is recognised."""
    return tiles.right.sum(1) / tiles.truth.sum(1)


@metric
def balanced_accuracy(tiles: Weighed) -> np.ndarray:
    """Mean recall of the classes that there are."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return _mean_where(tiles.right / tiles.truth, tiles.truth > 0)


@metric
def macro_f1(tiles: Weighed) -> np.ndarray:
    """Mean F1 of the classes that there are."""
    with np.errstate(divide='ignore', invalid='ignore'):
        f1 = 2 * tiles.right / (tiles.truth + tiles.predicted)
    return _mean_where(f1, tiles.truth > 0)


@metric
def precision(tiles: Weighed) -> np.ndarray:
    """Mean precision of the classes that there are; 0 for one that is never predicted."""
    with np.errstate(divide='ignore', invalid='ignore'):
        values = np.where(tiles.predicted > 0, tiles.right / tiles.predicted, 0.0)
    return _mean_where(values, tiles.truth > 0)


@metric
def recall(tiles: Weighed) -> np.ndarray:
    """Mean recall: what :func:`balanced_accuracy` is; both names are reported."""
    return balanced_accuracy(tiles)


@metric
def auroc(tiles: Weighed) -> np.ndarray:
    """Mean area under the ROC curve, one class against the rest; ties count half.

    NaN where only one class has weight.
    """
    each = _auroc(tiles.labels, tiles.probabilities, tiles.weights)
    return _mean_where(each, tiles.truth > 0)


@metric
def mean_average_precision(tiles: Weighed) -> np.ndarray:
    """Mean over the classes of :func:`average_precision`, one class against the rest."""
    each = [average_precisions(tiles.labels == c, tiles.probabilities[:, c], tiles.weights)
            for c in range(tiles.probabilities.shape[1])]
    return _mean_where(np.stack(each, 1), tiles.truth > 0)


@metric
def calibration_error(tiles: Weighed) -> np.ndarray:
    """Expected calibration error over 15 equally wide bins of confidence.

    Guo et al. 2017, arXiv 1706.04599, eq. 3.
    """
    confidence = tiles.probabilities.max(1)
    gap = (tiles.probabilities.argmax(1) == tiles.labels) - confidence
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    per_bin = np.zeros((len(tiles.labels), BINS))
    per_bin[np.arange(len(tiles.labels)), bins] = gap
    return np.abs(tiles.weights @ per_bin).sum(1) / tiles.weights.sum(1)


def score(labels: np.ndarray, probabilities: np.ndarray,
          weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return every score of :data:`SCORES` under R weightings of the tiles.

    Args:
        labels: int64 array of shape (N,), the true classes in 0..C-1.
        probabilities: array of shape (N, C), rows sum to 1.
        weights: array of shape (R, N), at least 0; ones of shape (1, N) by default.

    Returns:
        Arrays of shape (R,).

    Raises:
        UserError: there is no tile, or the classifier knows fewer classes than the labels or
            answers NaN.
        ValueError: a weighting leaves no tile.
    """
    check_head(labels, probabilities)
    weights = np.ones((1, len(labels))) if weights is None else np.asarray(weights, float)
    if not (weights.sum(1) > 0).all():
        raise ValueError('nothing can be scored under weights that are all 0')
    tiles = Weighed(labels, probabilities, weights, confusion(labels, probabilities, weights))
    return {name: compute(tiles) for name, compute in SCORES.items()}


def average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the interpolated precision-recall curve, of plain tiles.

    Args:
        positive: bool (N,), which tiles are of the class.
        scores: (N,), higher for the class; equal scores are one point of the curve, so that the
            order of tiles has no say.

    Returns:
        In [0, 1]; NaN without a positive.
    """
    return float(average_precisions(positive, scores, np.ones((1, len(scores))))[0])


def average_precisions(positive: np.ndarray, scores: np.ndarray,
                       weights: np.ndarray) -> np.ndarray:
    """Return :func:`average_precision` under R weightings (R, N) of the tiles, shape (R,)."""
    order = np.argsort(-scores, kind='stable')
    _, starts = np.unique(-scores[order], return_index=True)
    drawn = weights[:, order]
    hits = np.add.reduceat(drawn * positive[order], starts, axis=1).cumsum(1)
    taken = np.add.reduceat(drawn, starts, axis=1).cumsum(1)
    with np.errstate(divide='ignore', invalid='ignore'):
        precisions = np.where(taken > 0, hits / taken, 0.0)
        recalls = hits / hits[:, -1:]
    # Precision at a recall is the best at this or any higher one.
    envelope = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
    return (np.diff(recalls, axis=1, prepend=0.0) * envelope).sum(1)


def confusion(labels: np.ndarray, probabilities: np.ndarray,
              weights: np.ndarray | None = None) -> np.ndarray:
    """Return confusion matrices (R, C, C), indexed [true class, predicted class].

    Args:
        labels: int64 array of shape (N,), the true classes in 0..C-1.
        probabilities: array of shape (N, C).
        weights: of the tiles, shape (R, N); None weighs each 1, R = 1.
    """
    weights = np.ones((1, len(labels))) if weights is None else weights
    classes = probabilities.shape[1]
    cell = labels * classes + probabilities.argmax(1)
    # Tiles of one cell are summed without an N x C² matrix: sort by cell, add up the runs.
    order = np.argsort(cell, kind='stable')
    filled, starts = np.unique(cell[order], return_index=True)
    matrix = np.zeros((len(weights), classes * classes))
    matrix[:, filled] = np.add.reduceat(weights[:, order], starts, axis=1)
    return matrix.reshape(-1, classes, classes)


def per_class_recall(labels: np.ndarray, probabilities: np.ndarray) -> list[float | None]:
    """Return the recall of each class, None for a class without tiles."""
    matrix = confusion(labels, probabilities)[0]
    return [float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(matrix)]


def check_head(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Refuse data without a tile, a head that has fewer classes than the data, and NaN.

    The largest of several NaN is the first one: without this, NaN would be scored as class 0.
    """
    if not len(labels):
        raise UserError('there is not one tile to score', expected='at least one labelled tile')
    wrong = int((~np.isfinite(probabilities).all(1)).sum())
    if wrong:
        raise UserError(f'the probabilities of {wrong} of {len(labels)} tiles are not finite',
                        expected='a classifier that did not diverge')
    needed = int(labels.max()) + 1
    if probabilities.shape[1] < needed:
        raise UserError(f'the head knows {probabilities.shape[1]} classes, the data has {needed}',
                        expected='a head that was trained on the classes of this data')


def resamples(tiles: int, groups: np.ndarray | None = None, count: int = 1000,
              seed: int = 0) -> Iterator[np.ndarray]:
    """Yield bootstrap weights, blocks of shape (R, N) that sum up to ``count`` resamples.

    Args:
        tiles: N.
        groups: patient of each tile, shape (N,): whole patients are drawn then, because
            tiles of one patient are not independent.
        count: number of resamples.
        seed: the same seed draws the same resamples.
    """
    rng = np.random.default_rng(seed)
    _, unit = (None, np.arange(tiles)) if groups is None else np.unique(groups,
                                                                        return_inverse=True)
    units = int(unit.max()) + 1
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=size)
        yield drawn[:, unit].astype(np.float64)


def bootstrap(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None = None,
              count: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Return every score of ``count`` resamples of the tiles (or patients), shape (count,)."""
    check_head(labels, probabilities)
    blocks = [score(labels, probabilities, weights)
              for weights in resamples(len(labels), groups, count, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in SCORES}


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap values; (NaN, NaN) if all are NaN."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float('nan'), float('nan')
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def with_intervals(values: Mapping[str, np.ndarray], draws: Mapping[str, np.ndarray]
                   ) -> dict[str, dict[str, float | None]]:
    """Return every score by name as ``value`` and the ends of its 95 % interval, ``low``, ``high``.

    Args:
        values: of :func:`score` under one weighting, (1,).
        draws: of :func:`bootstrap`, (R,).
    """
    return {name: dict(zip(('value', 'low', 'high'), (float(value[0]), *interval(draws[name]))))
            for name, value in values.items()}


def _mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Mean over the classes of (R, C) that are ``where``; NaN values are left out too."""
    where = where & np.isfinite(values)
    with np.errstate(invalid='ignore'):
        return np.where(where, values, 0).sum(1) / where.sum(1)


def _auroc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return one-against-the-rest AUROC, (R, C): P(positive above negative) + ½ P(tie)."""
    columns = []
    for c in range(probabilities.shape[1]):
        order = np.argsort(probabilities[:, c], kind='stable')
        _, starts = np.unique(probabilities[order, c], return_index=True)
        drawn, positive = weights[:, order], labels[order] == c
        positives = np.add.reduceat(drawn * positive, starts, axis=1)  # R x distinct scores
        negatives = np.add.reduceat(drawn * ~positive, starts, axis=1)
        below = negatives.cumsum(1) - negatives / 2
        with np.errstate(divide='ignore', invalid='ignore'):
            columns.append((positives * below).sum(1)
                           / (positives.sum(1) * negatives.sum(1)))
    return np.stack(columns, 1)
