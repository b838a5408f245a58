"""Which cells of two views a dense method takes for the same place, and how much they count."""

import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..views import cell_polygons
from .canvas import SOFT_INK, UNIT_SQUARE, Canvas, Panel, draw_view_frame, to_image, view_color
from .view_sheet import TileSource, draw_tile, tile_name

#: Colours of the followed query cells; they stand out from haematoxylin and eosin and from
#: the colours of the two views.
CELL_COLORS = ('#00A83B', '#FFD500', '#E3001B', '#00C8F0', '#8A2BE2', '#111111')
GREY, CROSS = '#B4B4B4', '#8C8C8C'

GREY_OPACITY, PALE_OPACITY = 0.9, 0.75
LINES_PER_CELL = 4

MARGIN, HEADER, CAPTION, ROW_GAP = 18.0, 74.0, 12.0, 12.0
SIDE = 168.0
LEFTS = (MARGIN, MARGIN + SIDE + 58.0, MARGIN + 2 * SIDE + 58.0 + 24.0)


class _Pair(NamedTuple):
    """One pair of views; N cells of the query and M of the key, row by row."""

    images: tuple[np.ndarray, np.ndarray]
    weights: tuple[np.ndarray, np.ndarray]  # coverage of query and key cells, [N] and [M]
    match: np.ndarray  # N x M, [query cell, key cell]
    maps: Tensor | None  # 2 x 2 x 3, view to tile
    tile: np.ndarray | None
    followed: list[int]  # query cells whose matches are drawn


def match_sheet(batch: dict[str, Any], matching: Any, path: str | Path, *,
                source: TileSource | None = None, normalize: dict | None = None,
                grid: int | tuple[int, int] | None = None,
                key_grid: int | tuple[int, int] | None = None,
                samples: int | list[int] = 3, followed: int | None = None,
                title: str = 'Matched cells of two views') -> Path:
    """Draw pairs of views with their cells, and which cells are matched with which.

    Each row shows the query view, the key view and the tile with both grids. A few query
    cells are followed: lines lead to the key cells they are matched with. Every cell carries
    its weight: the less of it the other view covers, the paler it is; a cell that overlaps
    nothing is grey.

    Args:
        batch: ``views`` (the first two are drawn), ``view_to_tile`` or None, ``index``; as
            for :func:`openselfsup.visualization.view_sheet`.
        matching: has ``weight_q`` float [B, N] and ``weight_k`` [B, M] in [0, 1] and ``match_q``
            float [B, N, M], indexed [query cell, key cell], rows summing to 1 or 0; what
            ``openselfsup.views.match_cells`` returns.
        path: the PNG to write.
        source: where ``index`` points to; without it the grids are drawn on an empty square.
        normalize: ``mean`` and ``std`` to undo on floating-point views.
        grid: rows and columns of the query's cells; default is the square grid of N cells.
        key_grid: those of the key's cells where they differ.
        samples: how many pairs of the batch to draw, or which.
        followed: how many query cells of a pair to follow; default is 6, or 3 on a grid of
            fewer than 25 cells.
        title: printed on top.

    Returns:
        The path of the PNG.

    Raises:
        ValueError: a grid has not as many cells as the matching.
    """
    cells = matching.weight_q.shape[1]
    rows, cols = query_grid = _grid_of(grid, cells)
    grids = query_grid, _grid_of(key_grid or grid, matching.weight_k.shape[1])
    if isinstance(samples, int):
        samples = list(range(min(samples, len(batch['views'][0]))))
    if followed is None:
        followed = 6 if cells >= 25 else 3
    maps = batch.get('view_to_tile')
    row_height = SIDE + CAPTION + ROW_GAP
    canvas = Canvas(LEFTS[2] + SIDE + MARGIN, MARGIN + HEADER + len(samples) * row_height)
    _write_header(canvas, title)
    for row, sample in enumerate(samples):
        weights = _array(matching.weight_q[sample]), _array(matching.weight_k[sample])
        first, second = batch['views'][:2]
        index = int(batch['index'][sample])
        pair = _Pair(
            images=(to_image(first[sample], normalize), to_image(second[sample], normalize)),
            weights=weights,
            match=_array(matching.match_q[sample]),
            maps=maps[sample, :2].detach().cpu() if maps is not None else None,
            tile=source.read(index) if source is not None else None,
            followed=choose_cells(weights[0], rows, cols, followed))
        top = MARGIN + HEADER + row * row_height
        _draw_pair(canvas, top, pair, grids)
        _write_captions(canvas, top + SIDE + 9, weights, tile_name(source, index))
    return canvas.save(path)


def _grid_of(grid: int | tuple[int, int] | None, cells: int) -> tuple[int, int]:
    rows, cols = (grid, grid) if isinstance(grid, int) else grid or (math.isqrt(cells),) * 2
    if rows * cols != cells:
        raise ValueError(f'a grid of {rows} x {cols} does not have {cells} cells')
    return rows, cols


def choose_cells(weight: np.ndarray, rows: int, cols: int, count: int) -> list[int]:
    """Choose cells of high weight that lie far apart from each other.

    Args:
        weight: coverage weights, [rows * cols].
        rows: of the grid.
        cols: of the grid.
        count: how many to choose at most; cells of weight 0 are never chosen.

    Returns:
        Positions in the grid, row by row, in ascending order.
    """
    places = np.stack(np.divmod(np.arange(rows * cols), cols), axis=1).astype(float)
    centre = np.array([(rows - 1) / 2, (cols - 1) / 2])
    distance = np.linalg.norm(places - centre, axis=1) + 0.5
    chosen: list[int] = []
    for _ in range(count):
        score = weight * distance
        best = int(score.argmax())
        if score[best] <= 0:
            break
        to_best = np.linalg.norm(places - places[best], axis=1)
        distance = np.minimum(distance, to_best) if chosen else to_best
        chosen.append(best)
    return sorted(chosen)


def _draw_pair(canvas: Canvas, top: float, pair: _Pair,
               grids: tuple[tuple[int, int], tuple[int, int]]) -> None:
    squares = [cell_polygons(torch.eye(2, 3), grid).flatten(0, 1).numpy()  # N x 4 x 2, M x 4 x 2
               for grid in grids]
    panels = [Panel(left, top, SIDE, SIDE).fit(*image.shape[:2])
              for left, image in zip(LEFTS, pair.images)]
    for v, panel in enumerate(panels):
        canvas.image(pair.images[v], panel)
        _draw_weights(canvas, panel, squares[v], pair.weights[v])
        _draw_grid(canvas, panel, squares[v], view_color(v))
        draw_view_frame(canvas, panel, UNIT_SQUARE, view_color(v), width=1.0, casing=0.0)
    _draw_matches(canvas, panels, squares, pair)

    tile = draw_tile(canvas, Panel(LEFTS[2], top, SIDE, SIDE), pair.tile, pair.maps)
    if pair.maps is not None:
        on_tile = [cell_polygons(to_tile, grid).flatten(0, 1).numpy()
                   for to_tile, grid in zip(pair.maps, grids)]
        for v, cells in enumerate(on_tile):
            _draw_grid(canvas, tile, cells, view_color(v), clip=tile)
        for color, cell in zip(itertools.cycle(CELL_COLORS), pair.followed):
            points = tile.at(on_tile[0][cell])
            canvas.polygon(points, fill=color, alpha=0.3, clip=tile)
            canvas.polygon(points, color, 1.1, clip=tile)


def _draw_weights(canvas: Canvas, panel: Panel, squares: np.ndarray,
                  weights: np.ndarray) -> None:
    for square, weight in zip(squares, weights):
        if weight <= 0:
            _grey_out(canvas, panel.at(square))
        elif weight < 1:
            canvas.polygon(panel.at(square), fill='white',
                           alpha=PALE_OPACITY * (1 - float(weight)))


def _grey_out(canvas: Canvas, corners: np.ndarray) -> None:
    """Veil and cross out a cell: grey alone could be the colour of a view."""
    canvas.polygon(corners, fill=GREY, alpha=GREY_OPACITY)
    for a, b in ((0, 2), (1, 3)):
        canvas.line(corners[[a, b]], CROSS, 0.5)


def _draw_grid(canvas: Canvas, panel: Panel, squares: np.ndarray, color: str,
               clip: Panel | None = None) -> None:
    for square in squares:
        canvas.polygon(panel.at(square), color, 0.35, alpha=0.8, clip=clip)


def _draw_matches(canvas: Canvas, panels: list[Panel], squares: list[np.ndarray],
                  pair: _Pair) -> None:
    queries, keys = squares
    centres = keys.mean(axis=1)
    outlines_in = np.zeros(len(keys))  # key cells shared by several query cells nest them
    for color, cell in zip(itertools.cycle(CELL_COLORS), pair.followed):
        canvas.polygon(_inset(panels[0].at(queries[cell]), 0.8), color, 1.3, casing=0.5)
        for key in np.flatnonzero(pair.match[cell] > 0):
            inset = 0.8 + 1.7 * outlines_in[key]
            canvas.polygon(_inset(panels[1].at(keys[key]), inset), color, 1.0, casing=0.4)
            outlines_in[key] += 1
    for color, cell in zip(itertools.cycle(CELL_COLORS), pair.followed):
        start = panels[0].at(queries[cell].mean(axis=0))
        for key in np.argsort(pair.match[cell])[:-LINES_PER_CELL - 1:-1]:
            share = float(pair.match[cell, key])
            if share > 0:
                canvas.line([start, panels[1].at(centres[key])], color, _line_width(share),
                            casing=0.35)


def _line_width(share: float) -> float:
    return 0.5 + 2.5 * share


def _write_header(canvas: Canvas, title: str) -> None:
    canvas.text(MARGIN, MARGIN + 8, title, size=10, bold=True)
    small = partial(canvas.text, size=6.5, color=SOFT_INK)

    x, y = MARGIN, MARGIN + 23
    for weight in (1.0, 0.5, 0.1):
        box = Panel(x, y - 6, 8, 8).at(UNIT_SQUARE)
        canvas.polygon(box, fill='#B5478A')
        canvas.polygon(box, fill='white', alpha=PALE_OPACITY * (1 - weight))
        x += 9
    x += 3 + small(x + 3, y, 'the paler a cell, the less of it the other view covers: '
                   'its weight in the loss') + 16
    _grey_out(canvas, Panel(x, y - 6, 8, 8).at(UNIT_SQUARE))
    small(x + 12, y, 'crossed out: overlaps nothing, weight 0')

    x, y = MARGIN, MARGIN + 35
    for row, share in enumerate((1.0, 0.4, 0.1)):
        canvas.line([(x, y - 6 + 3.4 * row), (x + 23, y - 6 + 3.4 * row)], SOFT_INK,
                    _line_width(share))
    small(x + 30, y, 'the thicker a line, the larger the share of that key cell in the '
          f'match; the {LINES_PER_CELL} largest shares of a query cell are drawn')

    for cell, color in enumerate(CELL_COLORS[:3]):
        mark = Panel(MARGIN + 9 * cell, MARGIN + 41, 6.5, 6.5)
        canvas.polygon(mark.at(UNIT_SQUARE), color, 1.1)
    small(x + 30, y + 12, 'one colour: a query cell and all key cells it is matched with; '
          'the other query cells are matched in the same way')

    for left, name, color in zip(LEFTS, ('query view (view 1)', 'key view (view 2)',
                                         'tile, with both grids'),
                                 (view_color(0), view_color(1), SOFT_INK)):
        canvas.text(left, MARGIN + HEADER - 6, name, size=7, color=color, bold=True)


def _write_captions(canvas: Canvas, y: float, weights: tuple[np.ndarray, np.ndarray],
                    name: str) -> None:
    words = [f'mean weight {w.mean():.2f}; {(w <= 0).sum()} of {len(w)} cells overlap nothing'
             for w in weights]
    for left, text in zip(LEFTS, (*words, name)):
        canvas.text(left, y, text, size=5.8, color=SOFT_INK, max_width=SIDE)


def _inset(points: np.ndarray, by: float) -> np.ndarray:
    """Move the corners of an axis-aligned square ``by`` points towards its centre."""
    return points + by * np.sign(points.mean(axis=0) - points)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy()
