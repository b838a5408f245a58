"""Support vector machines on cached features, of all labelled tiles or of a few of each class.

The benchmark of Goyal et al. 2019 (arXiv:1905.01235) on any labelled tiles: one linear machine a
class, told from the rest. Its cost is chosen by cross-validation inside the training tiles, where
the published low-shot benchmark takes the one that is best on the test.
"""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import LinearSVC
from torch import Tensor

from ..datasets.parallel import default_workers
from ..training.features import refuse_not_finite
from .fitted import Fitted
from .metrics import average_precision
from .sampling import search_tiles

#: Costs C that are tried, as published: 1, 10, 100 and 2^-4 ... 2^-19.
COSTS = (1.0, 10.0, 100.0, *(2.0 ** -e for e in range(4, 20)))
#: What is taken where no tile can validate: one tile of a class.
FIXED_COST = 1.0
FOLDS = 3
#: Tiles of each class that the low-shot protocol trains on, as published.
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
_POSITIVE_WEIGHT, _ITERATIONS = 2, 2000
_NUMBERS_AT_ONCE = 200_000_000  # of features that threads may copy at a time


def fit_svm(features: Tensor, labels: Tensor, classes: int, seed: int,
            patients: np.ndarray | None = None, copies: np.ndarray | None = None) -> Fitted:
    """svm-v1: a linear machine for each class, its cost chosen by average precision.

    Features are divided by their length. Each class takes the cost of the highest average
    precision in three-fold cross-validation on the training tiles, on 3,000 of them where there
    are more (twice the width if that is more); of equals the smallest. Then it is fitted to all.

    Args:
        features: float32 tensor of shape (N, D).
        labels: int64 tensor of shape (N,).
        classes: C.
        seed: draws the folds.
        patients: patient of each tile, or None; whole patients validate where given.
        copies: a number for each tile, the same for tiles of the same pixels, or None: all copies
            are in one fold.

    Returns:
        What maps features to scores that rank the tiles of each class. Those of two classes, of
        different costs, do not compare: there is no answer, and no accuracy.

    Raises:
        UserError: features that are not finite.
    """
    refuse_not_finite(features)
    rows, truth = unit_rows(features), labels.numpy()
    search = search_tiles(labels, features.shape[1], seed)
    groups = patients if patients is not None else copies
    folds = _folds(truth[search], seed, None if groups is None else groups[search])
    threads = max(1, min(default_workers(), classes, _NUMBERS_AT_ONCE // max(rows.size, 1)))
    # The solver lets other threads run; that it did not end is told with the result.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads, 'svm') as pool:
        warnings.simplefilter('ignore', ConvergenceWarning)
        costs = list(pool.map(lambda c: _best_cost(rows[search], truth[search] == c, folds),
                              range(classes)))
        found = list(pool.map(lambda c: _machine(rows, truth == c, costs[c][0]), range(classes)))
    validated = 'nothing' if not folds else 'tiles' if patients is None else 'patients'
    settings = dict(costs=list(COSTS), folds=len(folds), search_tiles=len(search),
                    normalised='length 1', positive_weight=_POSITIVE_WEIGHT,
                    loss='squared hinge', solver='LIBLINEAR, primal', iterations=_ITERATIONS)
    chosen = dict(cost=[cost for cost, _ in costs],
                  validation_average_precision=[value for _, value in costs],
                  unconverged=sum(not done for *_, done in found), validated_by=validated)
    weight = np.stack([one[0] for one in found], 1)  # D x C
    bias = np.array([one[1] for one in found])

    def scores(queries: Tensor) -> Tensor:
        margin = torch.from_numpy(unit_rows(queries) @ weight + bias)
        return 0.5 + 0.5 * margin / (1 + margin.abs())  # rises with the margin, in (0, 1)

    return Fitted(scores, settings, chosen, probable=False,
                  validation_tiles=sum(len(held) for _, held in folds))


def unit_rows(features: Tensor) -> np.ndarray:
    """Return features divided by their length, float64 (N, D)."""
    rows = features.double().numpy()
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5)


def train_svm(rows: np.ndarray, positive: np.ndarray, cost: float) -> LinearSVC:
    """Return a linear machine with squared hinge loss and an L2 penalty.

    It is solved in its primal form, which draws nothing: published is the dual, whose draws are of
    all threads together. Both end at the same machine.

    Args:
        rows: features of length 1, float64 (N, D).
        positive: bool (N,), which tiles are of the class; they weigh twice.
        cost: C.
    """
    machine = LinearSVC(C=cost, class_weight={1: _POSITIVE_WEIGHT, -1: 1}, dual=False,
                        max_iter=_ITERATIONS)
    return machine.fit(rows, np.where(positive, 1, -1))


def _machine(rows: np.ndarray, positive: np.ndarray, cost: float
             ) -> tuple[np.ndarray, float, bool]:
    """Return weight (D,), bias, and whether the solver ended; constant with one class alone."""
    if not positive.any() or positive.all():
        return np.zeros(rows.shape[1]), 1.0 if positive.any() else -1.0, True
    machine = train_svm(rows, positive, cost)
    return machine.coef_[0], float(machine.intercept_[0]), machine.n_iter_ < _ITERATIONS


def _best_cost(rows: np.ndarray, positive: np.ndarray,
               folds: Sequence[tuple[np.ndarray, np.ndarray]]
               ) -> tuple[float, float | None]:
    """Return the cost of the best mean average precision over the folds, and that."""
    usable = [(kept, held) for kept, held in folds
              if positive[held].any() and 0 < positive[kept].sum() < len(kept)]
    if not usable:
        return FIXED_COST, None

    def mean(cost: float) -> float:
        return float(np.mean([average_precision(positive[held], train_svm(
            rows[kept], positive[kept], cost).decision_function(rows[held]))
            for kept, held in usable]))

    best, cost = max(((mean(cost), cost) for cost in COSTS), key=lambda one: (one[0], -one[1]))
    return cost, round(best, 6)


def _folds(labels: np.ndarray, seed: int, groups: np.ndarray | None
           ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return which tiles are kept and held in each fold; none where no class has two tiles."""
    count = min(FOLDS, int(np.bincount(labels).max()))
    groups = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = min(count, int(groups.max()) + 1)
    if count < 2:
        return []
    split: Callable = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # of classes with fewer tiles than folds
        return [(kept, held) for kept, held in split(labels[:, None], labels, groups) if len(held)]
