"""VICReg's terms: embeddings agree, spread, and have no dimension twice (arXiv 2105.04906).

VICRegL (arXiv 2210.01571) takes them of embeddings of views, and of n pairs of cells, where each
of the n places has statistics of its own over the batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Terms(NamedTuple):
    """Invariance, variance and covariance, scalar tensors without their coefficients."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def variance_term(variance: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Return mean relu(1 - √(var + ε)) of variances of any shape (eq. 1, 2)."""
    return torch.relu(1 - (variance + epsilon).sqrt()).mean()


def covariance_term(x: Tensor) -> Tensor:
    """Return Σ_{d≠e} C²_de / D, C = zᵀz / (B - 1) of the centred rows z (eq. 3, 4).

    For fewer rows than dimensions Σ C² comes from z zᵀ, which has the same sum of squares and is
    B x B: 512 tiles of 8,192 dimensions need no matrix of 67 million.

    Args:
        x: tensor of shape (B, D); or (B, n, D), and the mean over n is returned.

    Returns:
        Scalar tensor.
    """
    rows, dimensions = len(x), x.shape[-1]
    z = (x - x.mean(0)).view(rows, -1, dimensions).transpose(0, 1) / (rows - 1) ** 0.5  # n B D
    products = z @ z.mT if rows < dimensions else z.mT @ z
    diagonal = z.square().sum(1)
    return (products.square().sum((1, 2)) - diagonal.square().sum(1)).mean() / dimensions


def vicreg(x: Tensor, y: Tensor, everyone: tuple[Tensor, Tensor] | None = None,
           weights: Tensor | None = None) -> Terms:
    """Compare two embeddings of the same things, in float32 at least.

    Args:
        x: tensor of shape (B, D), or (B, n, D) for n places each.
        y: the same of the other view.
        everyone: ``x`` and ``y`` of all ranks, gathered with gradient, of which variance and
            covariance are taken; those of this rank if None. The mean over ranks is then what
            one process has.
        weights: tensor of shape (B,) or (B, n), factors on the squared differences.

    Returns:
        mean w (x - y)² over all numbers, and the means over ``x`` and ``y`` of variance and
        covariance terms, which have no weights: they compare nothing.

    Raises:
        ValueError: shapes differ, or there are fewer than two rows in all.
    """
    gathered = everyone or (x, y)
    if x.shape != y.shape or len(gathered[0]) < 2:
        raise ValueError('embeddings must have the same shape and two rows at least, not '
                         f'{tuple(x.shape)} and {tuple(y.shape)}')
    with torch.autocast(x.device.type, enabled=False):
        x, y, *both = (t.to(torch.promote_types(t.dtype, torch.float32))
                       for t in (x, y, *gathered))
        differences = (x - y).square()
        if weights is not None:
            differences = differences * weights[..., None]
        return Terms(differences.mean(),
                     torch.stack([variance_term(t.var(0)) for t in both]).mean(),
                     torch.stack([covariance_term(t) for t in both]).mean())


@torch.no_grad()
def nearest_cells(distances: Tensor, count: int | None = None, tolerance: float = 0.
                  ) -> tuple[Tensor, Tensor]:
    """Pair cells of one view with their nearest of the other (arXiv 2210.01571, sec. 3.2).

    Args:
        distances: tensor of shape (B, N, M), from each cell of a view to each of the other.
        count: how many pairs are kept, those of the smallest distances; all if None or more than
            there are.
        tolerance: distances that differ by no more are equal, and of equals the lowest numbers
            are taken. Two regular grids have many equal distances but for rounding.

    Returns:
        The kept cells in the order of their numbers and the nearest cell of each, int64 (B, n).
    """
    smallest = distances.amin(-1)
    nearest = (distances <= smallest[..., None] + tolerance).to(torch.uint8).argmax(-1)
    ordered, order = smallest.sort(dim=-1, stable=True)
    rank = torch.zeros_like(order)
    rank[:, 1:] = (ordered.diff() > tolerance).cumsum(-1)
    rank = torch.empty_like(rank).scatter_(1, order, rank)  # of each cell, equal for equals
    kept = rank.argsort(dim=-1, stable=True)[:, :count].sort(-1).values
    return kept, nearest.gather(1, kept)
