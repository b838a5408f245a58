"""Overlaps, coverage weights and matchings of a batch of view pairs."""

from collections.abc import Iterator

import torch
from torch import Tensor

from openselfsup.views import ViewRecipe, cell_boxes, match_cells

from . import published
from .timing import Case, on_threads

BATCH, GRID = 64, 7


def pairs_of_views() -> tuple[Tensor, Tensor]:
    """Return maps to the tile of 64 pairs of views, (64, 2, 3), as the published recipe crops."""
    recipe = ViewRecipe(224, [dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
                              dict(type='HorizontalFlip')])
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[224, 224]]).expand(BATCH, -1)
    q, k = (recipe.draw(sizes, generator)['view_to_tile'] for _ in range(2))
    return q, k


def match_cases() -> Iterator[Case]:
    """Yield the matching of 64 pairs of 7 x 7 cells."""
    q, k = pairs_of_views()
    boxes_q, boxes_k = cell_boxes(q, GRID), cell_boxes(k, GRID)
    yield Case('match', f'overlaps and matchings of {BATCH} pairs of {GRID} x {GRID} cells, '
                        'one core',
               on_threads(1, lambda: match_cells(q, k, GRID)),
               on_threads(1, lambda: published.match_boxes(boxes_q, boxes_k)),
               items=BATCH, unit='pairs/s', memory=True)
