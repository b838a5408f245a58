"""What tells the classes of patches from their features: neighbours, or a linear classifier.

Both learn from the patches of training images alone and return what maps features to
distributions over the classes. Nothing here sees a test image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError
from ..fitted import Fitted
from ..knn import nearest_tiles
from ..linear_probe import PENALTIES, TOLERANCE, VALIDATION_SHARE
from ..logistic import gradient_left, principal_axes, solve
from ..sampling import hold_out
from ..settings import DENSE_KNN, DENSE_LINEAR
from .masks import IGNORED
from .scores import scores_of

#: Hummingbird's numbers (arXiv:2306.01667, section 3): 30 neighbours, softmax at 0.02.
NEIGHBOURS, TEMPERATURE = 30, 0.02
_ROWS = 8192  # patches classified at a time: bounds the memory


@dataclass
class Patches:
    """Patches to learn from.

    Attributes:
        features: float32 tensor of shape (N, D).
        shares: float32 tensor of shape (N, C): share of each class in each patch, rows sum to 1.
        images: int64 array of shape (N,): image that each is of.
    """

    features: Tensor
    shares: Tensor
    images: np.ndarray


def patch_labels(truth: np.ndarray, grid: tuple[int, int], classes: int) -> np.ndarray:
    """Return the share of each class among the pixels of each cell of a grid over a mask.

    A pixel is of the cell that its centre lies in. Pixels that do not count are left out.

    Args:
        truth: classes, integers (H, W), :data:`~.masks.IGNORED` where a pixel does not count.
        grid: rows h and columns w of cells.
        classes: C.

    Returns:
        float32 array of shape (h, w, C); each cell sums to 1, or to 0 where no pixel counts.
    """
    rows, columns = ((2 * np.arange(n) + 1) * cells // (2 * n)
                     for n, cells in zip(truth.shape, grid))
    cell = rows[:, None] * grid[1] + columns
    counted = truth != IGNORED
    counts = np.bincount(cell[counted] * classes + truth[counted],
                         minlength=grid[0] * grid[1] * classes).reshape(*grid, classes)
    return (counts / counts.sum(2, keepdims=True).clip(min=1)).astype(np.float32)


def draw_patches(shares: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return which patches of an image are learnt from, sorted.

    Args:
        shares: of shape (h, w, C), see :func:`patch_labels`.
        most: how many at most, drawn without replacement.
        rng: draws them.
    """
    usable = np.flatnonzero(shares.reshape(-1, shares.shape[2]).sum(1) > 0)
    return np.sort(rng.permutation(usable)[:most])


def upsample(distributions: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return the most likely class of each pixel, uint8 (H, W).

    Args:
        distributions: over the classes, of each patch, tensor of shape (h, w, C).
        size: H and W; distributions are interpolated bilinearly.
    """
    maps = distributions.permute(2, 0, 1)[None].float()
    return F.interpolate(maps, size, mode='bilinear')[0].argmax(0).to(torch.uint8).numpy()


def fit_knn(patches: Patches, cases: np.ndarray, seed: int, colours: bool) -> Fitted:
    """dense-knn-v1: the soft labels of the 30 most similar patches, weighted softmax(cosine / T).

    In-context retrieval of Balažević et al. 2023 (arXiv:2306.01667, section 3) with T = 0.02.

    Args:
        patches: the memory.
        cases, seed: nothing is chosen here; see :func:`fit_linear`.
        colours: standardise first, because the cosine between raw colours is always near 1.
    """
    bank, k = patches.features, min(NEIGHBOURS, len(patches.features))
    mean = bank.mean(0) if colours else bank.new_zeros(bank.shape[1])
    scale = (bank.std(0, correction=0).clamp(min=1e-6) if colours
             else bank.new_ones(bank.shape[1]))
    bank, shares = (bank - mean) / scale, patches.shares.double()

    def distributions(features: Tensor) -> Tensor:
        similarity, found = nearest_tiles(bank, (features - mean) / scale, k)
        weight = (similarity.double() / TEMPERATURE).softmax(1)  # M x k
        return (weight.unsqueeze(2) * shares[found]).sum(1)

    return Fitted(_in_parts(distributions), dict(
        k=k, temperature=TEMPERATURE, similarity='cosine', standardised='colours only'))


def fit_linear(patches: Patches, cases: np.ndarray, seed: int, colours: bool) -> Fitted:
    """dense-linear-v2: multinomial logistic regression on standardised features, soft labels.

    The penalty of highest mDice on the patches of a fifth of the training cases wins (of a fifth
    of the patches where there is one case), the stronger of equal ones; then the classifier is
    fitted to all patches. Version 1 took that of lowest cross-entropy: where few cases validate,
    that can be one which calls all patches the same class.

    Args:
        patches: to learn from.
        cases: case of each training image, shape (images,): whole ones are held out.
        seed: draws those.
        colours: features of colours are treated like all others.
    """
    x, shares, classes = patches.features, patches.shares, patches.shares.shape[1]
    _, held = hold_out(np.zeros(len(cases), np.int64), VALIDATION_SHARE, seed, cases)
    out = torch.from_numpy(np.isin(patches.images, held))
    axes = principal_axes(x)
    how = 'cases'
    if not out.any() or out.all():  # of a single case: patches of it choose
        how, out = 'patches', torch.zeros(len(x), dtype=torch.bool)
        out[hold_out(np.zeros(len(x), np.int64), VALIDATION_SHARE, seed)[1]] = True
    best, score, start = 0, float('nan'), None
    if out.any():
        penalties = torch.tensor(PENALTIES)
        weights = (~out).float().expand(len(penalties), -1)
        thetas = solve(x, axes, shares, classes, penalties, weights, tolerance=TOLERANCE)
        scores = np.array([_mdice(x[out] @ weight + bias, shares[out])
                           for weight, bias in map(axes.classifier, thetas)])
        best = int(scores.argmax())
        score, start = float(scores[best]), thetas[best:best + 1]
    problem = x, axes, shares, classes, torch.tensor([PENALTIES[best]])
    theta = solve(*problem, start=start, tolerance=TOLERANCE)
    gradient = gradient_left(*problem, theta)
    if not np.isfinite(gradient):
        raise UserError('logistic regression on these features gives no finite classifier',
                        expected='features of a smaller range')
    classifier = axes.classifier(theta[0])
    return Fitted(_in_parts(classifier.probabilities), dict(
        penalties=list(PENALTIES), validation_share=VALIDATION_SHARE, standardised=True,
        solver='L-BFGS'), dict(
            penalty=PENALTIES[best], validation_mdice=round(score, 6),
            validated_by=how, validation_images=len(held), gradient_left=round(gradient, 6)))


def _mdice(logits: Tensor, shares: Tensor) -> float:
    """Return the mDice of the most likely class of patches (N, C); -1 if not all are finite."""
    if not logits.isfinite().all():
        return -1.0
    found = F.one_hot(logits.argmax(1), shares.shape[1]).to(shares)
    return float(scores_of((shares.T @ found).double().numpy())['mdice'])


Fit = Callable[[Patches, np.ndarray, int, bool], Fitted]
#: Every dense protocol.
PROBES: dict[str, Fit] = {DENSE_LINEAR: fit_linear, DENSE_KNN: fit_knn}


def _in_parts(classify: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda features: torch.cat([classify(part) for part in features.split(_ROWS)])


def describe(settings: dict[str, Any], patches: int) -> dict[str, Any]:
    """Return the settings of a probe with how many patches it may learn from."""
    return dict(settings, most_patches=patches, labels='share of each class under the patch',
                prediction='distributions interpolated bilinearly to pixels, argmax')
