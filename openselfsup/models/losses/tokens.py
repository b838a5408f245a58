"""Losses between the patch tokens of a student and of a teacher, image by image."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .self_distillation import soft_cross_entropy

_LEAST = 1e-6  # of a squared norm, before the root: constant tokens have no direction


class PerImage(NamedTuple):
    """A loss of each image, and whether it counts.

    Attributes:
        losses: tensor of shape (B,), 0 where an image does not count.
        valid: tensor of shape (B,), 1 or 0.
    """

    losses: Tensor
    valid: Tensor

    def mean(self) -> Tensor:
        """Return the mean over the images that count, 0 if none does."""
        return self.losses.sum() / self.valid.sum().clamp_min(1)


def kernel_alignment(x: Tensor, y: Tensor, weights: Tensor | None = None) -> PerImage:
    """Return 1 - CKA of tokens of the same places (PaKA, arXiv 2509.05606, linear kernel).

    With p = w / Σw, H = I - 1pᵀ and X = diag(√p) H x, CKA = ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) in Frobenius
    norms: what tokens are like one another is to be the same for both. Weights 0 and 1 are the
    masks of published code.

    Args:
        x: the student's tokens, (B, n, D).
        y: the teacher's, (B, n, D'); they get no gradient.
        weights: w >= 0, (B, n); 1 for all if None.

    Returns:
        Losses from 0 to 1; images with less than two tokens of a weight do not count.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (x, y.detach()))
        weights = x.new_ones(x.shape[:2]) if weights is None else weights.to(x.dtype)
        valid = ((weights > 0).sum(1) > 1).to(x.dtype)
        share = (weights / weights.sum(1, keepdim=True).clamp_min(_LEAST))[..., None]  # B n 1
        root = share.sqrt()
        x, y = (root * (t - (share * t).sum(1, keepdim=True)) for t in (x, y))
        if x.shape[1] <= max(x.shape[2], y.shape[2]):
            of_x, of_y = x @ x.mT, y @ y.mT  # B n n
            shared = (of_x * of_y).sum((1, 2))
        else:  # the same, of smaller matrices
            of_x, of_y = x.mT @ x, y.mT @ y
            shared = (x.mT @ y).square().sum((1, 2))
        norms = [of.square().sum((1, 2)).clamp_min(_LEAST).sqrt() for of in (of_x, of_y)]
        return PerImage(valid * (1 - shared / (norms[0] * norms[1])), valid)


def gram_anchoring(x: Tensor, y: Tensor) -> Tensor:
    """Return mean (XXᵀ - YYᵀ)² of normalised tokens (DINOv3, arXiv 2508.10104, sec. 4.2).

    Args:
        x: the student's patch tokens, (B, N, D).
        y: those of the teacher whose similarities are to be kept, (B, N, D'); no gradient.

    Returns:
        Scalar tensor: the mean over all pairs of patches of an image, and over images.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = (F.normalize(t.to(torch.promote_types(t.dtype, torch.float32)), dim=-1)
                for t in (x, y.detach()))
        return (x @ x.mT - y @ y.mT).square().mean()


def matched_patch_loss(share: Tensor, targets: Tensor, logits: Tensor, temperature: float = 0.1
                       ) -> PerImage:
    """Let cells predict what a teacher made of the cells that cover them in another view.

    For each pair of views Σ_ij A_ij CE(p_j, s_i) / Σ_ij A_ij. CE is linear in p, so this is the
    mean, by coverage w_i, of the cross entropy with the mixed distribution Σ_j M_ij p_j.

    Args:
        share: A_ij = |a_i ∩ b_j| / |a_i|, (B, N, M): ``share_q`` of a
            :class:`openselfsup.views.Matching`.
        targets: the teacher's probabilities of the cells b_j, (B, M, K).
        logits: the student's of the cells a_i, (B, N, K).
        temperature: τ_s of the student.

    Returns:
        Losses; pairs of views that do not overlap do not count.
    """
    with torch.autocast(logits.device.type, enabled=False):
        mixed = share.to(targets.dtype) @ targets  # B N K, rows sum to w
        total = share.sum((1, 2)).to(mixed.dtype)
        losses = soft_cross_entropy(mixed, logits, temperature).sum(1)
        return PerImage(losses / total.clamp_min(_LEAST), (total > 0).to(losses.dtype))
