"""Areas of convex polygons, batched and without waiting for the device.

A polygon is a tensor of shape (..., V, 2) of (x, y) vertices in order. The number of vertices
is fixed: a polygon with fewer corners repeats one, one without an area repeats a point.
"""

import torch
from torch import Tensor


def area(polygons: Tensor) -> Tensor:
    """Return the areas of polygons of shape (..., V, 2), shape (...)."""
    # Relative to a vertex, since the products of absolute positions cancel badly.
    a = polygons - polygons[..., :1, :]
    b = a.roll(-1, dims=-2)
    return (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(-1).abs() / 2


def clip(polygons: Tensor, axis: int, bound: float, keep: int) -> Tensor:
    """Clip convex polygons to a half plane (Sutherland & Hodgman 1974).

    Args:
        polygons: convex polygons of shape (..., V, 2).
        axis: 0 to clip by x, 1 to clip by y.
        bound: position of the edge of the half plane.
        keep: 1 to keep what lies above ``bound``, -1 to keep what lies below.

    Returns:
        Tensor of shape (..., V + 1, 2), the most corners that the result can have.
    """
    following = polygons.roll(-1, dims=-2)
    distance = keep * (polygons[..., axis] - bound)
    distance_following = keep * (following[..., axis] - bound)
    inside = distance >= 0
    crosses = inside != (distance_following >= 0)
    t = torch.where(crosses, distance / (distance - distance_following), 0.)
    crossing = polygons + t[..., None] * (following - polygons)
    # Each side may leave its first vertex and its crossing; the kept ones move to the front.
    candidates = torch.stack([polygons, crossing], dim=-2).flatten(-3, -2)  # ... 2V 2
    kept = torch.stack([inside, crosses], dim=-1).flatten(-2)
    kept, order = kept.to(torch.uint8).sort(dim=-1, descending=True, stable=True)
    vertices = polygons.shape[-2] + 1
    order = torch.where(kept.bool(), order, order[..., :1])[..., :vertices, None]
    return candidates.gather(-2, order.expand(*order.shape[:-1], 2))


def clip_to_unit_square(polygons: Tensor) -> Tensor:
    """Return the parts of convex polygons (..., V, 2) inside [0, 1]², (..., V + 4, 2)."""
    for axis in (0, 1):
        polygons = clip(clip(polygons, axis, 0., 1), axis, 1., -1)
    return polygons


def areas_in_unit_grid(polygons: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return how much of each polygon lies in each cell of a regular grid over [0, 1]².

    The part of a polygon above a line y = Y inside a column of the grid is the signed sum,
    over the sides of the polygon, of ∫ max(y(x) − Y, 0) dx; a cell is the difference between
    the lines at its two ends.

    Args:
        polygons: polygons of shape (..., V, 2).
        grid: (rows, columns).

    Returns:
        Tensor of shape (..., rows, columns).
    """
    rows, columns = grid
    dtype, device = polygons.dtype, polygons.device
    lines_x = torch.arange(columns + 1, dtype=dtype, device=device) / columns
    lines_y = torch.arange(rows + 1, dtype=dtype, device=device) / rows
    (x, y), (x_next, y_next) = polygons.unbind(-1), polygons.roll(-1, dims=-2).unbind(-1)
    run = x_next - x
    slope = torch.where(run != 0, (y_next - y) / run, 0.)[..., None]
    x, y, x_next = x[..., None], y[..., None], x_next[..., None]
    # The part of each side in each column, from `start` to `stop`.  # ... V columns
    start = torch.clamp(x, lines_x[:-1], lines_x[1:])
    stop = torch.clamp(x_next, lines_x[:-1], lines_x[1:])
    above_start = (y + (start - x) * slope)[..., None] - lines_y  # ... V columns rows+1
    above_stop = (y + (stop - x) * slope)[..., None] - lines_y
    # The mean of max(h, 0) for h from a to b is (a⁺ + b⁺)² / 2(|a| + |b|).
    span = (above_start.abs() + above_stop.abs()).clamp_min_(torch.finfo(x.dtype).tiny)
    mean = above_start.relu_().add_(above_stop.relu_()).square_().div_(span.mul_(2))
    above = mean.mul_((stop - start)[..., None]).sum(-3)  # ... columns rows+1
    return (above[..., :-1] - above[..., 1:]).mT.abs()
