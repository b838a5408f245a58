"""What methods share that learn the clusters of their tiles as if they were classes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .parts import at_least_float32, weighted_mean


def sizes_of(labels: Tensor, clusters: int) -> Tensor:
    """Return how many of the labels (N,) are each of 0 ... K - 1, int64 (K,); nobody waits."""
    return labels.new_zeros(clusters).index_add_(0, labels, torch.ones_like(labels))


def class_weights(sizes: Tensor, power: float) -> Tensor:
    """Return weights of sum 1 in proportion to sizes^-power, float32 (K,); 0 for empty classes."""
    weights = torch.where(sizes > 0, sizes.clamp_min(1).float() ** -power, 0)
    return weights / weights.sum()


def weighted_cross_entropy(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return Σ w_y CE / Σ w_y over the rows of all ranks, in float32 at least.

    Args:
        scores: of shape (B, K).
        labels: int64 tensor of shape (B,) with values in [0, K).
        weights: of the K classes, not negative.
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = at_least_float32(scores)
        weights = weights.to(scores.dtype)
        losses = F.cross_entropy(scores, labels, weights, reduction='sum')
        return weighted_mean(losses, weights[labels])


@torch.no_grad()
def restart_head(head: nn.Module, generator: torch.Generator) -> None:
    """Draw a classifier anew, N(0, 0.01²) with biases 0: the numbers of its classes have changed.

    Args:
        head: all of its linear layers are drawn.
        generator: on the CPU; whoever gives all ranks the same one keeps their heads equal.
    """
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            drawn = torch.randn(layer.weight.shape, generator=generator) * 0.01
            layer.weight.copy_(drawn.to(layer.weight.dtype))
            if layer.bias is not None:
                layer.bias.zero_()


def check_head(head: nn.Module, dim: int) -> None:
    """Raise a UserError if a classifier does not take vectors of size ``dim``."""
    wanted = getattr(head, 'in_channels', dim)
    if wanted != dim:
        raise UserError(f'the head takes vectors of size {wanted}, the features have {dim}',
                        where='model.head.in_channels', expected=str(dim))
