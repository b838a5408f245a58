"""Scores of the pixels of an evaluation, from one confusion matrix an image, and intervals."""

from typing import NamedTuple

import numpy as np

from ..metrics import interval, resamples
from .masks import IGNORED

SCORES = ('mdice', 'miou')


class Difference(NamedTuple):
    """By how much one feature is better than another, on the same resamples of the test.

    Attributes:
        low, high: the 95 % interval of the difference.
        better: share of the resamples in which the first is better.
    """

    low: float
    high: float
    better: float


def confusion(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Count the pixels of an image by true and predicted class.

    Args:
        truth: classes, integers (H, W), :data:`~.masks.IGNORED` where a pixel does not count.
        found: classes, integers (H, W).
        classes: C.

    Returns:
        int64 array of shape (C, C), indexed [true class, predicted class].
    """
    counted = truth != IGNORED
    cells = truth[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def class_scores(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Dice and IoU of each class from confusion matrices (..., C, C), both (..., C).

    NaN for a class that is neither there nor predicted.
    """
    hit = np.einsum('...cc->...c', counts).astype(float)
    both = counts.sum(-1) + counts.sum(-2)  # true pixels and predicted ones
    with np.errstate(invalid='ignore'):
        return 2 * hit / both, hit / (both - hit)


def scores_of(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of confusion matrices (..., C, C).

    Returns:
        ``mdice`` and ``miou``, means over the classes that occur, of shape (...); ``dice`` and
        ``iou``, of each class, of shape (..., C).
    """
    dice, iou = class_scores(counts)
    return dict(mdice=_mean(dice), miou=_mean(iou), dice=dice, iou=iou)


def bootstrap(confusions: np.ndarray, cases: np.ndarray, count: int = 1000,
              seed: int = 0) -> dict[str, np.ndarray]:
    """Return the scores of ``count`` resamples of the cases, as :func:`scores_of` does.

    Equal cases, count and seed draw the same cases: values of two features may be subtracted.

    Args:
        confusions: of each image, shape (N, C, C).
        cases: case of each image, shape (N,); whole cases are drawn.
        count: R, number of resamples.
        seed: of the draws.
    """
    flat = confusions.reshape(len(confusions), -1).astype(float)
    drawn = np.concatenate([weights @ flat for weights in resamples(
        len(flat), cases, count, seed)])
    return scores_of(drawn.reshape(-1, *confusions.shape[1:]))


def paired_difference(draws_a: np.ndarray, draws_b: np.ndarray) -> Difference:
    """Compare two features by their bootstrap values, shape (R,), of the same resamples."""
    if draws_a.shape != draws_b.shape:
        raise ValueError(f'{draws_a.shape} and {draws_b.shape} are not the same resamples')
    difference = draws_a - draws_b
    return Difference(*interval(difference), float((difference > 0).mean()))


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is a number, NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid='ignore'):
        return np.where(known, values, 0).sum(-1) / known.sum(-1)
