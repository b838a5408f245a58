"""Which cells of two views show the same tissue: overlaps, coverage weights, matchings.

Notation of PLM (arXiv 2212.12105): with cells q_i of the query view and k_j of the key view
as regions of the tile, I_ij = |q_i ∩ k_j|, A^q = I / |q_i|, A^k = Iᵀ / |k_j|, coverage
weights w^q_i = Σ_j A^q_ij and matchings M^q = A^q / w^q (the same for k). Cells that reach
outside the tile are clipped to it first.

Maps are taken for exact and overlaps computed in float64, so that they are as right for a
small view anywhere on a slide as for a view of a whole tile. Overlaps thinner than a few units
of rounding of the maps (and than 2^-16 of the cells) are no overlaps: two cells that only touch
are not matched, whatever the rounding of their common edge.
"""

from typing import NamedTuple

import torch
from torch import Tensor

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


def _limit(side: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the thickness, in tile fractions, up to which an overlap is rounding.

    A few roundings of the maps, but never more than 2^-16 of what can be seen of a cell: of
    small views on a large tile, whose cells are not much larger than these, nothing is lost.

    Args:
        side: of the smaller of two cells, in tile fractions, float64.
        dtype: of the maps as they were given.
    """
    return (side * 2 ** -16).clamp_(4 * torch.finfo(side.dtype).eps, 4 * torch.finfo(dtype).eps)


def _safe(x: Tensor) -> Tensor:
    """Return ``x`` fit to divide by: 0 / _safe(0) is 0."""
    return x.clamp_min(torch.finfo(x.dtype).tiny)


# Axis-aligned maps. Areas and their row sums are products of one-dimensional overlaps, one
# along each axis of the tile, and so are weights and matchings. The lines of a view are its
# columns and its rows. They and their overlaps are float64, since a cell may be small beside its
# position; what has a number for each pair of cells is in the dtype of the maps.

def _lines(maps: Tensor, transposed: Tensor, grids: tuple[tuple[int, int], ...]) -> Tensor:
    """Return where the lines of grids begin and end along x and along y of the tile.

    Args:
        maps: axis-aligned maps of V views of B tiles, (V, B, 2, 3).
        transposed: which of them are, (V, B).
        grids: (rows, columns) of each of the V views.

    Returns:
        Lower and upper ends clipped to the tile, (2, V, B, 2, L), the axes as (x, y), L the
        largest side of a grid; axes of fewer lines are filled up with empty intervals.
    """
    # Along an axis of the tile one component is zero: the sum is the other.
    offset, step = maps[..., 2:], maps[..., :2].sum(-1, keepdim=True)
    size = max(map(max, grids))
    ticks = torch.arange(size + 1, dtype=maps.dtype, device=maps.device)
    if all(grid == (size, size) for grid in grids):
        ticks = ticks / size
    else:  # where columns and rows begin on their view, and 1 behind them, (V, 1, 2, L + 1)
        ticks = torch.stack([torch.stack([ticks / columns, ticks / rows])
                             for rows, columns in grids])[:, None].clamp_(max=1)
        ticks = torch.where(transposed[..., None, None], ticks.flip(-2), ticks)
    edges = torch.addcmul(offset, step, ticks).clamp_(0, 1)
    first, last = edges[..., :-1], edges[..., 1:]
    return torch.stack([torch.minimum(first, last), torch.maximum(first, last)])


def _match_axis_aligned(query_to_tile: Tensor, key_to_tile: Tensor, grid: tuple[int, int],
                        key_grid: tuple[int, int]) -> Matching:
    dtype = query_to_tile.dtype
    maps = torch.stack([query_to_tile, key_to_tile]).double()
    transposed = is_transposed(maps)  # 2 B
    low, high = _lines(maps, transposed, (grid, key_grid))
    side = high - low  # 2 B 2 L
    (low_q, low_k), (high_q, high_k), (side_q, side_k) = low, high, side
    common = (torch.minimum(high_q[..., None], high_k[..., None, :])
              .sub_(torch.maximum(low_q[..., None], low_k[..., None, :])))  # B 2 L L
    limit = _limit(torch.minimum(side_q[..., None], side_k[..., None, :]), dtype)
    common = torch.where(common > limit, common, 0.)
    both = torch.stack([common, common.mT])  # from either view's side, 2 B 2 L L
    total = both.sum(-1)
    weight = (total / _safe(side)).to(dtype)
    match = both.div_(_safe(total)[..., None]).to(dtype)
    if grid == key_grid:
        weight, match = _products(weight, match, transposed, transposed.flip(0), grid, grid)
        return Matching(*weight, *match)
    turned_q, turned_k = transposed
    weight_q, match_q = _products(weight[0], match[0], turned_q, turned_k, grid, key_grid)
    weight_k, match_k = _products(weight[1], match[1], turned_k, turned_q, key_grid, grid)
    return Matching(weight_q, weight_k, match_q, match_k)


def _products(weight: Tensor, match: Tensor, transposed: Tensor, other_transposed: Tensor,
              grid: tuple[int, int], other_grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return weights (..., N) and matching (..., N, M) of cells from those of their lines.

    Args:
        weight: of the lines of one view along x and y of the tile, (..., 2, L).
        match: of these with the lines of the other view, (..., 2, L, L).
        transposed: whether this view's columns run along y, (...).
        other_transposed: the same for the other view, (...).
        grid: (rows, columns) of this view, N cells.
        other_grid: (rows, columns) of the other view, M cells.
    """
    (rows, columns), (other_rows, other_columns) = grid, other_grid
    turned = transposed[..., None, None]
    weight = torch.where(turned, weight.flip(-2), weight)
    weight = weight[..., 1, :rows, None] * weight[..., 0, None, :columns]
    # A column goes with columns of the other view, or with its rows.
    match = torch.where(turned[..., None], match.flip(-3), match)
    cell = torch.arange(other_rows * other_columns, device=match.device)
    of_cell = torch.stack([cell // other_columns, cell % other_columns])[:, None]  # 2 1 M
    crossed = (transposed != other_transposed)[..., None, None, None]
    which = torch.where(crossed, of_cell, of_cell.flip(0))  # ... 2 1 M
    match = match.gather(-1, which.expand(*match.shape[:-1], -1))  # ... 2 L M
    match = match[..., 1, :rows, None, :] * match[..., 0, None, :columns, :]  # ... rows columns M
    return weight.clamp_(max=1).flatten(-2), match.flatten(-3, -2)


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
    size_q, size_k = (determinant(maps).abs()[:, None, None]
                      for maps in (query_to_tile, key_to_tile))
    overlaps = overlaps * size_k
    extent = torch.minimum(area_q[..., None], area_k[:, None]).sqrt_()  # B Q K
    # Cells far outside the key view are differences of areas as wide as the cell, at most as
    # the view, and as high as the cell is away: these are rounded, too.
    reach = on_key.abs().amax((-2, -1))[..., None]  # B Q 1, in sides of the key view
    width = (on_key[..., 0].amax(-1) - on_key[..., 0].amin(-1)).clamp_(max=1)[..., None]
    # And so is the edge of the tile, along a side of either view.
    edge = torch.minimum(size_q, size_k).sqrt_()
    noise = 4 * torch.finfo(reach.dtype).eps * (size_k * reach * width + 4 * edge)
    thin = overlaps <= _limit(extent, dtype).mul_(extent).add_(noise)
    overlaps = torch.where(thin, 0., overlaps)
    ways = [_normalise(overlaps, area_q), _normalise(overlaps.mT, area_k)]
    return Matching(*(part.to(dtype) for pair in zip(*ways) for part in pair))


def _normalise(overlaps: Tensor, areas: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and matching from overlap areas (B, N, M) and cell areas (B, N)."""
    total = overlaps.sum(-1)
    return (total / _safe(areas)).clamp(max=1), overlaps / _safe(total)[..., None]
