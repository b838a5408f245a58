"""Which cells of two views show the same tissue: overlaps, coverage weights, matchings.

Notation of PLM (arXiv 2212.12105): with cells q_i of the query view and k_j of the key view
as regions of the tile, I_ij = |q_i ∩ k_j|, A^q = I / |q_i|, A^k = Iᵀ / |k_j|, coverage
weights w^q_i = Σ_j A^q_ij and matchings M^q = A^q / w^q (the same for k). Cells that reach
outside the tile are clipped to it first.

Overlaps thinner than a few units of rounding are no overlaps: two cells that only touch are
not matched, whatever the rounding of their common edge.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import threshold

from .geometry import Grid, cell_polygons, determinant, grid_shape, invert, is_transposed, transform
from .polygons import area, areas_in_unit_grid, clip_to_unit_square


class Matching(NamedTuple):
    """Cells of the query view against cells of the key view, B pairs of views.

    Attributes:
        weight_q: coverage weights w^q in [0, 1], (B, Q).
        weight_k: coverage weights w^k in [0, 1], (B, K).
        match_q: M^q indexed [q, k], (B, Q, K); rows sum to 1, or to 0 where w^q is 0.
        match_k: M^k indexed [k, q], (B, K, Q); rows sum to 1, or to 0 where w^k is 0.
    """

    weight_q: Tensor
    weight_k: Tensor
    match_q: Tensor
    match_k: Tensor

    @property
    def share_q(self) -> Tensor:
        """A^q = w^q M^q indexed [q, k], (B, Q, K): the share of cell q that cell k covers."""
        return self.weight_q[..., None] * self.match_q

    @property
    def share_k(self) -> Tensor:
        """A^k = w^k M^k indexed [k, q], (B, K, Q): the share of cell k that cell q covers."""
        return self.weight_k[..., None] * self.match_k


def match_cells(query_to_tile: Tensor, key_to_tile: Tensor, grid: Grid,
                geometry: str = 'axis_aligned', key_grid: Grid | None = None) -> Matching:
    """Match the cells of pairs of views by the tissue they share.

    Nothing here waits for the device or indexes by a mask. Cells are numbered row by row.

    Args:
        query_to_tile: view-to-tile maps of the query views, (B, 2, 3), float32 or float64.
        key_to_tile: view-to-tile maps of the key views, (B, 2, 3).
        grid: cells along each side of a view, or (rows, columns).
        geometry: 'axis_aligned' for maps made of crops, flips, quarter turns and transposes,
            'affine' for any affine map. Axis-aligned maps give the same on both paths; the
            first is some 100 times faster and wrong for any other map.
        key_grid: grid of the key views where it differs from ``grid``.

    Returns:
        The :class:`Matching`, in the dtype and on the device of the maps.

    Raises:
        ValueError: ``geometry`` or a grid is none of the above.
    """
    grid = grid_shape(grid)
    key_grid = grid if key_grid is None else grid_shape(key_grid)
    if geometry == 'axis_aligned':
        return _match_axis_aligned(query_to_tile, key_to_tile, grid, key_grid)
    if geometry == 'affine':
        return _match_affine(query_to_tile, key_to_tile, grid, key_grid)
    raise ValueError(f"cells are matched for geometry 'axis_aligned' or 'affine', "
                     f'not {geometry!r}')


def _rounding(dtype: torch.dtype) -> float:
    """Return the thickness, in tile fractions, below which an overlap is rounding."""
    return 4 * torch.finfo(dtype).eps


def _safe(x: Tensor) -> Tensor:
    """Return ``x`` fit to divide by: 0 / _safe(0) is 0."""
    return x.clamp_min(torch.finfo(x.dtype).tiny)


# Axis-aligned maps. Areas and their row sums are products of one-dimensional overlaps, one
# along each axis of the tile, and so are weights and matchings. An axis of a view is 0 for x
# (its columns) and 1 for y (its rows), whichever way it runs on the tile.

def _lines(maps: Tensor, transposed: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return where the columns and the rows of a grid begin and end on the tile.

    Args:
        maps: axis-aligned maps, (..., 2, 3).
        transposed: which of them are, (...).
        grid: (rows, columns).

    Returns:
        Lower and upper ends clipped to the tile, (2, ..., 2, L), the axes as (x, y), L the
        larger side of the grid; the other axis is filled up with empty intervals.
    """
    offset = maps[..., 2]
    offset = torch.where(transposed[..., None], offset.flip(-1), offset)
    # Of an axis of the view one component on the tile is zero: the sum is the other.
    step = maps[..., :2].sum(-2)
    # Where columns and rows begin on their view, and 1 behind them, (2, L + 1)
    ticks = torch.arange(max(grid) + 1, dtype=maps.dtype, device=maps.device)
    ticks = torch.stack([ticks / grid[1], ticks / grid[0]]).clamp_(max=1)
    edges = torch.addcmul(offset[..., None], step[..., None], ticks).clamp_(0, 1)
    first, last = edges[..., :-1], edges[..., 1:]
    return torch.stack([torch.minimum(first, last), torch.maximum(first, last)])


def _cells(lines: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return from :func:`_lines` where each of the N cells begins and ends, (2, ..., 2, N)."""
    rows, columns = grid
    by_column, by_row = lines[..., 0, None, :columns], lines[..., 1, :rows, None]
    shape = (*lines.shape[:-2], rows, columns)
    return torch.stack([by_column.expand(shape), by_row.expand(shape)], -3).flatten(-2)


def _match_axis_aligned(query_to_tile: Tensor, key_to_tile: Tensor, grid: tuple[int, int],
                        key_grid: tuple[int, int]) -> Matching:
    maps = torch.stack([query_to_tile, key_to_tile])
    transposed = is_transposed(maps)  # 2 B
    # Whether the columns of one view run along the rows of the other.
    crossed = (transposed[0] != transposed[1])[:, None, None]  # B 1 1
    if grid == key_grid:
        lines = _lines(maps, transposed, grid)  # 2 2 B 2 L
        weight, match = _one_way(lines, _cells(lines, grid).flip(1), crossed, grid)
        return Matching(*weight, *match)
    lines_q = _lines(maps[0], transposed[0], grid)
    lines_k = _lines(maps[1], transposed[1], key_grid)
    weight_q, match_q = _one_way(lines_q, _cells(lines_k, key_grid), crossed, grid)
    weight_k, match_k = _one_way(lines_k, _cells(lines_q, grid), crossed, key_grid)
    return Matching(weight_q, weight_k, match_q, match_k)


def _one_way(lines: Tensor, others: Tensor, crossed: Tensor, grid: tuple[int, int]
             ) -> tuple[Tensor, Tensor]:
    """Return weights (..., B, N) and matching (..., B, N, M) of the cells of one view.

    Args:
        lines: :func:`_lines` of this view, (2, ..., B, 2, L).
        others: :func:`_cells` of the other view, (2, ..., B, 2, M).
        crossed: whether the axes of the one run along the other axes of the other, (B, 1, 1).
        grid: (rows, columns) of this view, N cells.
    """
    rows, columns = grid
    low, high = lines[..., None]  # ... B 2 L 1
    other_low, other_high = torch.where(crossed, others.flip(-2), others)[..., None, :]
    common = torch.minimum(high, other_high).sub_(torch.maximum(low, other_low))  # ... B 2 L M
    common = threshold(common, _rounding(common.dtype), 0., inplace=True)
    # In ``common`` a column of the other view counts once for each of its rows and a row once
    # for each column, M times together in the products below, which this shares between them.
    total = common.sum(-1) / others.shape[-1] ** 0.5  # ... B 2 L
    weight_x, weight_y = (total / _safe(high - low)[..., 0]).unbind(-2)
    weight = (weight_y[..., :rows, None] * weight_x[..., None, :columns]).clamp_(max=1)
    match_x, match_y = common.div_(_safe(total)[..., None]).unbind(-3)
    match = match_y[..., :rows, None, :] * match_x[..., None, :columns, :]
    return weight.flatten(-2), match.flatten(-3, -2)


# Any affine map. In the key view's own coordinates its cells are a regular grid, into which
# the (clipped) cells of the query view are cut. Computed in float64: the area of a cell is
# small beside the coordinates it is made of.

def _match_affine(query_to_tile: Tensor, key_to_tile: Tensor, grid: tuple[int, int],
                  key_grid: tuple[int, int]) -> Matching:
    dtype = query_to_tile.dtype
    query_to_tile, key_to_tile = query_to_tile.double(), key_to_tile.double()
    cells_q = clip_to_unit_square(cell_polygons(query_to_tile, grid).flatten(1, 2))
    cells_k = clip_to_unit_square(cell_polygons(key_to_tile, key_grid).flatten(1, 2))
    area_q, area_k = area(cells_q), area(cells_k)
    on_key = transform(invert(key_to_tile)[:, None, None], cells_q)  # B Q 8 2
    overlaps = areas_in_unit_grid(on_key, key_grid).flatten(2)  # B Q K
    size_q, size_k = determinant(query_to_tile).abs(), determinant(key_to_tile).abs()
    overlaps = overlaps * size_k[:, None, None]
    extent = torch.minimum(size_q / cells_q.shape[1], size_k / cells_k.shape[1]).sqrt()
    # Cells far outside the key view are differences of large areas: these are rounded, too.
    reach = on_key.abs().amax((-2, -1))  # B Q, in sides of the key view
    noise = _rounding(torch.float64) * size_k[:, None] * reach ** 2
    thin = overlaps <= (_rounding(dtype) * extent[:, None] + noise)[..., None]
    overlaps = torch.where(thin, 0., overlaps)
    ways = [_normalise(overlaps, area_q), _normalise(overlaps.mT, area_k)]
    return Matching(*(part.to(dtype) for pair in zip(*ways) for part in pair))


def _normalise(overlaps: Tensor, areas: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and matching from overlap areas (B, N, M) and cell areas (B, N)."""
    total = overlaps.sum(-1)
    return (total / _safe(areas)).clamp(max=1), overlaps / _safe(total)[..., None]
