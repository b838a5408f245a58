"""The linear probe, linear-v1: logistic regression on cached features of a frozen backbone.

It fits on training features alone and returns what classifies any features. Nothing here ever
sees a test tile, so nothing can be chosen by one.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..training.features import refuse_not_finite
from .fitted import Fitted
from .logistic import Axes, Classifier, gradient_left, principal_axes, solve
from .sampling import search_tiles, validation_split

#: Penalties that linear-v1 chooses from (see :func:`~openselfsup.evaluation.logistic.solve`).
PENALTIES = tuple(10.0 ** e for e in (1, 0, -1, -2, -3, -4, -5))
#: Factors of the logits that it chooses from together with the penalty.
SHARPNESS = tuple(2.0 ** (e / 2) for e in range(-4, 13))
VALIDATION_SHARE = 0.2
#: Up to so many training tiles the choice rests on several splits; above, on one.
FEW_TILES, SPLITS = 2000, 5
#: Gradient at which a fit counts as done: a tenth of what moves an accuracy.
TOLERANCE = 1e-3


def fit_linear(features: Tensor, labels: Tensor, classes: int, seed: int,
               patients: np.ndarray | None = None, copies: np.ndarray | None = None) -> Fitted:
    """linear-v1: logistic regression, its penalty chosen on validation tiles inside train.

    Features are standardised by training tiles, by 3,000 of them where there are more (twice the
    width if that is more). The penalty of lowest cross-entropy on a held-out fifth of those (mean
    over five splits where there are at most 2,000 tiles) wins; then the classifier is fitted to
    all training tiles.

    A strong penalty may rank classes best and still be too unsure of them, which plain
    cross-entropy would hold against it. The logits therefore have a factor (Guo et al. 2017,
    arXiv:1706.04599, temperature scaling) that is chosen together with the penalty.

    Args:
        features: float32 tensor of shape (N, D).
        labels: int64 tensor of shape (N,).
        classes: C.
        seed: draws the validation tiles.
        patients: patient of each tile, or None; whole patients validate where given.
        copies: a number for each tile, the same for tiles of the same pixels, or None: no copy
            of a tile that is fitted on validates.

    Raises:
        UserError: features that are not finite, or that no classifier can be fitted to.
    """
    refuse_not_finite(features)
    search = search_tiles(labels, features.shape[1], seed)
    found = [validation_split(labels[search].numpy(), VALIDATION_SHARE, seed * SPLITS + i,
                              None if patients is None else patients[search],
                              None if copies is None else copies[search])
             for i in range(SPLITS if len(labels) <= FEW_TILES else 1)]
    splits = [(kept, held) for kept, held, _ in found if len(held)]
    settings = dict(penalties=list(PENALTIES), validation_share=VALIDATION_SHARE,
                    splits=len(splits), search_tiles=len(search), standardised=True,
                    solver='L-BFGS')
    axes = principal_axes(features[search])
    best, sharpness, loss, start = 0, 1.0, math.nan, None
    if splits:
        losses, thetas = _search(features[search], axes, labels[search], classes, splits)
        losses = losses.nan_to_num(nan=math.inf)  # argmin would take NaN for the least
        best, factor = divmod(int(losses.argmin()), len(SHARPNESS))
        sharpness, loss = SHARPNESS[factor], float(losses.min())
        start = thetas[:, best].mean(0, keepdim=True)  # nearly the answer
    problem = features, axes, labels, classes, torch.tensor([PENALTIES[best]])
    theta = solve(*problem, start=start, tolerance=TOLERANCE)
    gradient = gradient_left(*problem, theta)
    if not math.isfinite(gradient):
        raise UserError('logistic regression on these features gives no finite classifier',
                        expected='features of a smaller range')
    weight, bias = axes.classifier(theta[0])
    classifier = Classifier(sharpness * weight, sharpness * bias)
    held_out = round(sum(len(held) for _, held in splits) / max(len(splits), 1))
    return Fitted(classifier.probabilities, settings,
                  dict(penalty=PENALTIES[best], sharpness=round(sharpness, 4),
                       validation_loss=round(loss, 6), gradient_left=round(gradient, 6),
                       validated_by=found[0][2]), classifier, validation_tiles=held_out)


def _search(features: Tensor, axes: Axes, labels: Tensor, classes: int,
            splits: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Fit every penalty on every split, all at once.

    Returns:
        The mean cross-entropy (P, F) of each penalty and factor of the logits on the tiles
        held out, and the parameters (S, P, C, r + 1).
    """
    held = torch.zeros(len(splits), len(labels), dtype=torch.bool)
    for i, (_, out) in enumerate(splits):
        held[i, out] = True
    # Problem s · P + p is split s with penalty p.
    weights = (~held).float().repeat_interleave(len(PENALTIES), 0)
    theta = solve(features, axes, labels, classes, torch.tensor(PENALTIES).repeat(len(splits)),
                  weights, tolerance=TOLERANCE)
    theta = theta.view(len(splits), len(PENALTIES), *theta.shape[1:])
    losses, factors = torch.zeros(len(PENALTIES), len(SHARPNESS)), torch.tensor(SHARPNESS)
    for out, found in zip(held, theta):
        for p, (weight, bias) in enumerate(map(axes.classifier, found)):
            logits = features[out] @ weight + bias  # M x C
            sharp = (factors.view(-1, 1, 1) * logits).flatten(0, 1)  # (F·M) x C
            loss = F.cross_entropy(sharp, labels[out].repeat(len(factors)), reduction='none')
            losses[p] += loss.view(len(factors), -1).sum(1)
    return losses / held.sum(), theta
