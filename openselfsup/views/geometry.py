"""Affine maps from a view to its tile, and the cells of a view as regions of the tile.

Coordinates are fractions of the image in [0, 1], x to the right and y downwards, so that
0 and 1 are the outer edges of the first and the last pixel. A map is a tensor of shape
(..., 2, 3) that takes (x, y, 1) to (x, y). Products are written out as sums: a matrix
product would be rounded to bfloat16 inside an autocast region.
"""

import torch
from torch import Tensor

Grid = int | tuple[int, int]


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the map that applies ``inner`` first and ``outer`` to its result.

    Args:
        outer: maps of shape (..., 2, 3).
        inner: maps of shape (..., 2, 3), broadcast against ``outer``.

    Returns:
        Tensor of shape (..., 2, 3).
    """
    product = (outer[..., :2, None] * inner[..., None, :, :]).sum(-2)
    return torch.cat([product[..., :2], product[..., 2:] + outer[..., 2:]], dim=-1)


def determinant(maps: Tensor) -> Tensor:
    """Return the factor by which maps of shape (..., 2, 3) change (signed) areas, (...)."""
    return maps[..., 0, 0] * maps[..., 1, 1] - maps[..., 0, 1] * maps[..., 1, 0]


def invert(maps: Tensor) -> Tensor:
    """Return the inverses of maps of shape (..., 2, 3); a singular map gives inf or nan."""
    a, b, x = maps[..., 0, :].unbind(-1)
    c, d, y = maps[..., 1, :].unbind(-1)
    rows = [torch.stack([d, -b, b * y - d * x], dim=-1),
            torch.stack([-c, a, c * x - a * y], dim=-1)]
    return torch.stack(rows, dim=-2) / determinant(maps)[..., None, None]


def transform(maps: Tensor, points: Tensor) -> Tensor:
    """Apply maps of shape (..., 2, 3) to points of shape (..., 2) as (x, y)."""
    return (maps[..., :2] * points[..., None, :]).sum(-1) + maps[..., 2]


def is_transposed(maps: Tensor) -> Tensor:
    """Return whether axis-aligned maps (..., 2, 3) send the view's x to the tile's y, (...)."""
    return maps[..., 0, 0].abs() < maps[..., 0, 1].abs()


def is_axis_aligned(maps: Tensor, tolerance: float = 1e-5) -> Tensor:
    """Return which maps (..., 2, 3) send upright boxes to upright boxes.

    Args:
        maps: view-to-tile maps of shape (..., 2, 3).
        tolerance: how far the entries that should vanish may be from zero, in sides of the
            view: it may be small on its tile.

    Returns:
        Boolean tensor of shape (...).
    """
    straight = torch.maximum(maps[..., 0, 1].abs(), maps[..., 1, 0].abs())
    turned = torch.maximum(maps[..., 0, 0].abs(), maps[..., 1, 1].abs())
    return torch.minimum(straight, turned) <= tolerance * torch.maximum(straight, turned)


def grid_shape(grid: Grid) -> tuple[int, int]:
    """Return ``grid`` as (rows, columns).

    Raises:
        ValueError: it is not one or two positive integers.
    """
    shape = (grid, grid) if isinstance(grid, int) else tuple(grid)
    if len(shape) != 2 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f'a grid is a positive integer or (rows, columns), not {grid!r}')
    return shape


def cell_corners(view_to_tile: Tensor, grid: Grid) -> Tensor:
    """Return where the corners of a view's cells lie on the tile.

    Args:
        view_to_tile: maps of shape (..., 2, 3).
        grid: cells along each side of the view, or (rows, columns).

    Returns:
        Tensor of shape (..., rows + 1, columns + 1, 2) as (x, y) in tile fractions.
    """
    rows, columns = grid_shape(grid)
    dtype, device = view_to_tile.dtype, view_to_tile.device
    y = torch.arange(rows + 1, dtype=dtype, device=device)[:, None, None] / rows
    x = torch.arange(columns + 1, dtype=dtype, device=device)[:, None] / columns
    along_x, along_y, origin = view_to_tile[..., None, None, :, :].unbind(-1)
    return along_x * x + along_y * y + origin


def cell_centres(view_to_tile: Tensor, grid: Grid) -> Tensor:
    """Return where the middles of a view's cells lie on the tile.

    Args:
        view_to_tile: maps of shape (..., 2, 3).
        grid: cells along each side of the view, or (rows, columns).

    Returns:
        Tensor of shape (..., rows, columns, 2) as (x, y) in tile fractions.
    """
    corners = cell_corners(view_to_tile, grid)
    return (corners[..., :-1, :-1, :] + corners[..., 1:, 1:, :]) / 2


def cell_boxes(view_to_tile: Tensor, grid: Grid) -> Tensor:
    """Return the cells of axis-aligned views as boxes of the tile.

    Neighbours share their edge exactly. A flipped view lists its cells in its own order, so
    the boxes of a row then run from right to left.

    Args:
        view_to_tile: axis-aligned maps of shape (..., 2, 3).
        grid: cells along each side of the view, or (rows, columns).

    Returns:
        Tensor of shape (..., rows, columns, 4) as (y0, x0, y1, x1) in tile fractions.
    """
    corners = cell_corners(view_to_tile, grid).flip(-1)
    first, last = corners[..., :-1, :-1, :], corners[..., 1:, 1:, :]
    return torch.cat([torch.minimum(first, last), torch.maximum(first, last)], dim=-1)


def cell_polygons(view_to_tile: Tensor, grid: Grid) -> Tensor:
    """Return the cells of views as parallelograms on the tile.

    Args:
        view_to_tile: maps of shape (..., 2, 3).
        grid: cells along each side of the view, or (rows, columns).

    Returns:
        Tensor of shape (..., rows, columns, 4, 2): the corners (x, y) in tile fractions,
        in the view's order top left, top right, bottom right, bottom left.
    """
    corners = cell_corners(view_to_tile, grid)
    top, bottom = corners[..., :-1, :, :], corners[..., 1:, :, :]
    around = [top[..., :-1, :], top[..., 1:, :], bottom[..., 1:, :], bottom[..., :-1, :]]
    return torch.stack(around, dim=-2)
