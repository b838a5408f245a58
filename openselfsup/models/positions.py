"""Positional embeddings of vision transformers on grids of another size."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Resizing = Literal['timm', 'dino']
RESIZINGS = get_args(Resizing)


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int],
                     prefix: int = 1, rule: Resizing = 'timm') -> Tensor:
    """Interpolate learnt positions bicubically, in float32; those of class and registers stay.

    Args:
        positions: (1, prefix + h·w, D) on the grid ``old``.
        old: its (h, w).
        new: the wanted grid (h', w').
        prefix: how many positions come before those of the patches.
        rule: 'timm', to the wanted size and with antialiasing, which is what DINOv2 with registers
            does, too; 'dino', as DINO, iBOT and DINOv2 without registers do: by the factor
            (n + 0.1) / M without antialiasing, so that the samples are not centred. Weights want
            the rule that they were trained with.

    Returns:
        (1, prefix + h'·w', D) in the type of ``positions``; these themselves on an equal grid.
    """
    if old == new:
        return positions
    with torch.autocast(positions.device.type, enabled=False):
        grid = positions[:, prefix:].float().unflatten(1, old).permute(0, 3, 1, 2)  # 1 x D x h x w
        if rule == 'dino':
            scale = [(wanted + 0.1) / given for wanted, given in zip(new, old)]
            grid = F.interpolate(grid, scale_factor=scale, mode='bicubic')
        else:
            grid = F.interpolate(grid, new, mode='bicubic', antialias=True)
        resized = grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :prefix], resized], 1)
