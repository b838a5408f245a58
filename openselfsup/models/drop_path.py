"""Stochastic depth, of which all blocks of a network share one compiled graph."""

import timm.layers
import torch
from torch import Tensor, nn

from ..values import BelowOne

_PLACES = ('drop_path', 'drop_path1', 'drop_path2')  # of a residual branch in timm's blocks


class DropPath(nn.Module):
    """Leave out a residual branch for some images in training (arXiv 1603.09382).

    What timm's does. There the rate is an argument of a random draw, and torch.compile makes a
    graph for each rate, of which it gives up after eight: the blocks of a ViT have more.

    Args:
        drop_prob: share p of images for which the branch is left out; the others are divided by
            1 - p.
    """

    def __init__(self, drop_prob: BelowOne):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Map a branch (B, ...) to one of the same shape."""
        if self.drop_prob == 0 or not self.training:
            return x
        kept = 1 - self.drop_prob
        draws = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device)
        return x * (draws < kept) / kept

    def extra_repr(self) -> str:
        """Return the rate."""
        return f'{self.drop_prob:.3g}'


def set_drop_path(net: nn.Module, rate: float | None) -> None:
    """Put :class:`DropPath` in the place of timm's, at its rate or at one for all branches.

    Args:
        net: a network of timm.
        rate: None for the rates that are there; else that of every residual branch.
    """
    for module in [*net.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, timm.layers.DropPath):
                setattr(module, name, DropPath(child.drop_prob if rate is None else rate))
            elif rate is not None and isinstance(child, nn.Identity) and name in _PLACES:
                setattr(module, name, DropPath(rate))
        for name in _PLACES:
            if rate is not None and vars(module).get(name, 0) is None:  # as in timm's ResNets
                setattr(module, name, DropPath(rate))
