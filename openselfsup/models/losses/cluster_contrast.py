"""CA2CL's cluster-aware loss: each view predicts the clusters of the other.

Cluster-aware adversarial contrastive learning (JBHI 2025); the mutual information has the
form of IIC (Ji et al. 2019, arXiv 1807.06653, eq. 2-3).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cluster_contrast(group0: Tensor, group1: Tensor, centroids0: Tensor, centroids1: Tensor,
                     labels0: Tensor, labels1: Tensor, temperature: float,
                     present0: Tensor | None = None, present1: Tensor | None = None) -> Tensor:
    """Return ½ [CE(g⁰ c¹ᵀ / T, y¹) + CE(g¹ c⁰ᵀ / T, y⁰)], in float32 at least.

    Args:
        group0: L2-normalised tensor of shape (B, D), one view of each tile.
        group1: the same for the other view.
        centroids0: tensor of shape (K, D), clusters of the first view over the whole batch.
        centroids1: the same for the second view.
        labels0: int64 tensor of shape (B,) with values in [0, K), clusters of ``group0``.
        labels1: the same for ``group1``.
        temperature: T > 0.
        present0: bool tensor of shape (K,); clusters that are not present leave the softmax.
            All stay if None, an empty one as the vector 0 (published).
        present1: the same for ``centroids1``.

    Returns:
        Scalar tensor, the mean over the B tiles, 0 without tiles. Gradients flow to features and
        centroids.

    Raises:
        ValueError: shapes do not fit, or the temperature is not positive.
    """
    if group0.shape != group1.shape or centroids0.shape != centroids1.shape:
        raise ValueError('both views must have the same shapes, not '
                         f'{tuple(group0.shape)} and {tuple(group1.shape)} with centroids '
                         f'{tuple(centroids0.shape)} and {tuple(centroids1.shape)}')
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, not {temperature}')
    with torch.autocast(group0.device.type, enabled=False):
        logits0 = _logits(group0, centroids1, present1) / temperature
        logits1 = _logits(group1, centroids0, present0) / temperature
        reduction = 'mean' if len(group0) else 'sum'  # the mean of no tile would be NaN
        return (F.cross_entropy(logits0, labels1, reduction=reduction)
                + F.cross_entropy(logits1, labels0, reduction=reduction)) / 2


def joint_assignment(group0: Tensor, group1: Tensor, centroids0: Tensor, centroids1: Tensor,
                     present0: Tensor | None = None, present1: Tensor | None = None) -> Tensor:
    """Return PᵀQ with P = softmax(g⁰ c¹ᵀ) and Q = softmax(g¹ c⁰ᵀ), both without temperature.

    Arguments are those of :func:`cluster_contrast`. The result of several ranks is the sum of
    theirs.

    Returns:
        Tensor of shape (K, K) that sums to B.
    """
    with torch.autocast(group0.device.type, enabled=False):
        p = torch.softmax(_logits(group0, centroids1, present1), 1)
        q = torch.softmax(_logits(group1, centroids0, present0), 1)
        return p.T @ q


def negative_mutual_information(joint: Tensor) -> Tensor:
    """Return -Σ J (log J - log J_row - log J_col) of a joint distribution over clusters.

    Args:
        joint: tensor of shape (K, K) with values >= 0, from :func:`joint_assignment`; it is
            symmetrised and divided by its sum here. Cells of value 0 add nothing.

    Returns:
        Scalar tensor in [-log K, 0], 0 for a ``joint`` of zeros (no tiles).
    """
    joint = (joint + joint.T) / 2
    tiny = torch.finfo(joint.dtype).tiny
    joint = joint / joint.sum().clamp_min(tiny)
    marginal = joint.sum(0)  # of rows and columns alike
    independent = torch.outer(marginal, marginal)
    return -(joint * (joint.clamp_min(tiny).log() - independent.clamp_min(tiny).log())).sum()


def _logits(group: Tensor, centroids: Tensor, present: Tensor | None) -> Tensor:
    """Return g cᵀ of shape (B, K), in float32 at least, -inf for clusters not present."""
    logits = _at_least_float32(group) @ _at_least_float32(centroids).T
    return logits if present is None else logits.masked_fill(~present, -torch.inf)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
