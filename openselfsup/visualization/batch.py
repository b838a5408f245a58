"""The pictures of one batch of a dataset, as a run draws them before its first step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..training.modes import eval_mode
from ..views import Matching, match_cells
from .match_viewer import match_sheet
from .view_sheet import view_sheet


def draw_batch(batch: dict[str, Any], dataset: Any, out: str | Path,
               grids: Sequence[tuple[int, int]] | None) -> None:
    """Write ``views.png`` and, of a method that matches cells, ``matches.png``.

    Args:
        batch: a batch of the dataset with its views rendered; see :func:`view_sheet`.
        dataset: has ``source``, the tiles, ``view_names`` and ``geometry``, what its recipes
            keep track of.
        out: the folder to write into.
        grids: rows and columns of cells of the first two views, see :func:`cell_grid`; None for
            a method without.
    """
    view_sheet(batch, Path(out) / 'views.png', source=dataset.source,
               names=dataset.view_names, rows=4)
    if grids is not None:
        grid, key_grid = grids
        match_sheet(batch, match_views(batch, grid, dataset.geometry, key_grid),
                    Path(out) / 'matches.png', source=dataset.source, grid=grid, key_grid=key_grid)


def match_views(batch: dict[str, Any], grid: tuple[int, int], geometry: str,
                key_grid: tuple[int, int] | None = None) -> Matching:
    """Match the cells of the first two views of each tile, the second on a grid of its own."""
    maps = batch['view_to_tile']
    return match_cells(maps[:, 0], maps[:, 1], grid, geometry=geometry, key_grid=key_grid)


def cell_grid(backbone: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of a backbone's last feature map.

    Args:
        backbone: takes images [B, 3, H, W] and returns a list of feature maps. It sees one
            black image, in eval mode.
        size: height and width of the images.
    """
    device = next(backbone.parameters()).device
    with torch.no_grad(), eval_mode(backbone):  # its buffers stay as they are
        return tuple(backbone(torch.zeros(1, 3, *size, device=device))[-1].shape[-2:])
