"""Cross entropies between what a teacher and a student make of an image and of its patches.

CE(p, s) = -Σ_k p_k log softmax(s / τ_s)_k over K prototypes: DINO (arXiv 2104.14294, eq. 1, 3),
iBOT (arXiv 2111.07832, eq. 2), DINOv2 (arXiv 2304.07193, sec. 4). All are computed in float32 at
least; targets get no gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.log_softmax(logits / temperature, dim=-1)


def soft_cross_entropy(targets: Tensor, logits: Tensor, temperature: float = 0.1) -> Tensor:
    """Return CE of each row.

    Args:
        targets: the teacher's probabilities, of shape (..., K).
        logits: the student's, of the same shape.
        temperature: τ_s of the student.

    Returns:
        Tensor of shape (...).
    """
    with torch.autocast(logits.device.type, enabled=False):
        return -(targets.detach() * _log_softmax(logits, temperature)).sum(-1)


def dino_loss(targets: Tensor, logits: Tensor, temperature: float = 0.1) -> Tensor:
    """Let each crop predict what the teacher made of every other global crop.

    The mean over images of CE, averaged over all pairs of a global crop of the teacher and
    another crop of the student: G (G - 1) + G L of them. DINOv2 writes the same in two parts.

    Args:
        targets: the teacher's probabilities of the G global crops, (G, B, K).
        logits: the student's of all V = G + L crops, the global ones first, (V, B, K).
        temperature: τ_s of the student.

    Returns:
        Scalar tensor.
    """
    crops, views = len(targets), len(logits)
    with torch.autocast(logits.device.type, enabled=False):
        total = targets.detach().sum(0)  # CE is linear in p: one product for each crop
        asked = [total - targets[v].detach() if v < crops else total for v in range(views)]
        losses = [-(p * _log_softmax(s, temperature)).sum(-1).mean()
                  for p, s in zip(asked, logits)]
        return torch.stack(losses).sum() / (crops * (views - 1))


def masked_patch_loss(targets: Tensor, logits: Tensor, weights: Tensor, crops: int,
                      temperature: float = 0.1) -> Tensor:
    """Let masked patches predict what the teacher made of them (iBOT's second loss).

    Σ over masked patches of CE / (number masked in their crop), divided by the number of all
    global crops, with masks or without.

    Args:
        targets: the teacher's probabilities of the n masked patches, (n, K), n >= 0.
        logits: the student's, (n, K).
        weights: 1 / the number of masked patches in the crop of each, (n,).
        crops: number of global crops, 2 B.
        temperature: τ_s of the student.

    Returns:
        Scalar tensor, 0 without masked patches.
    """
    return (weights * soft_cross_entropy(targets, logits, temperature)).sum() / crops
