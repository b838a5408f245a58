"""Overlaps of cells in rational numbers: an oracle without rounding."""

from fractions import Fraction

import torch
from torch import Tensor

Point = tuple[Fraction, Fraction]
TILE: list[Point] = [(Fraction(x), Fraction(y)) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]


def exact_shares(query: Tensor, key: Tensor, grid: tuple[int, int], key_grid: tuple[int, int]
                 ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return A^q (Q, K), A^k (K, Q) and the visible part of each cell, (Q,) and (K,), float64.

    Args:
        query: map of the query view, (2, 3): its numbers are taken for exact.
        key: map of the key view, (2, 3).
        grid: (rows, columns) of the query view.
        key_grid: (rows, columns) of the key view.
    """
    cells_q, whole_q = _visible_cells(query, grid)
    cells_k, whole_k = _visible_cells(key, key_grid)
    areas_q, areas_k = [_area(c) for c in cells_q], [_area(c) for c in cells_k]
    both = [[_area(_common(q, k)) for k in cells_k] for q in cells_q]
    return (_ratios(both, areas_q), _ratios(list(zip(*both)), areas_k),
            _ratios([areas_q], [whole_q])[0], _ratios([areas_k], [whole_k])[0])


def _ratios(rows: list, areas: list[Fraction]) -> Tensor:
    return torch.tensor([[float(v / a) if a else 0. for v in row] for row, a in zip(rows, areas)],
                        dtype=torch.float64)


def _visible_cells(view: Tensor, grid: tuple[int, int]) -> tuple[list[list[Point]], Fraction]:
    """Return the parts of cells inside the tile, and the area of a whole cell."""
    rows, columns = grid
    linear = [[Fraction(v) for v in row] for row in view.tolist()]

    def corner(x: Fraction, y: Fraction) -> Point:
        return tuple(a * x + b * y + c for a, b, c in linear)

    cells = []
    for i in range(rows * columns):
        left, right = (Fraction(i % columns + d, columns) for d in (0, 1))
        top, bottom = (Fraction(i // columns + d, rows) for d in (0, 1))
        cell = [corner(left, top), corner(right, top), corner(right, bottom), corner(left, bottom)]
        cells.append(_common(cell if _area(cell) > 0 else cell[::-1], TILE))
    (a, b, _), (c, d, _) = linear
    return cells, abs(a * d - b * c) / (rows * columns)


def _common(polygon: list[Point], other: list[Point]) -> list[Point]:
    """Cut a polygon by the sides of another, both convex and in the same sense of rotation."""
    for (ax, ay), (bx, by) in zip(other, other[1:] + other[:1]):
        side = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        out: list[Point] = []
        for (p, s), (q, t) in zip(zip(polygon, side), zip(polygon[1:] + polygon[:1],
                                                          side[1:] + side[:1])):
            if s >= 0:
                out.append(p)
            if s * t < 0:
                u = s / (s - t)
                out.append((p[0] + u * (q[0] - p[0]), p[1] + u * (q[1] - p[1])))
        polygon = out
    return polygon if len(polygon) > 2 and len(other) > 2 else []


def _area(polygon: list[Point]) -> Fraction:
    """Return the area, positive for the sense of rotation of TILE."""
    following = polygon[1:] + polygon[:1]
    return sum((p[0] * q[1] - p[1] * q[0] for p, q in zip(polygon, following)), Fraction(0)) / 2
