"""A sheet of what the model is shown: tiles, where their views lie, and the views."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from .canvas import (
    SOFT_INK,
    UNIT_SQUARE,
    Canvas,
    Panel,
    draw_view_frame,
    outline,
    to_image,
    view_color,
)

MARGIN, GAP, BLOCK_GAP = 18.0, 6.0, 22.0
HEADER, HEADINGS, CAPTION, ROW_GAP = 36.0, 14.0, 11.0, 9.0


class TileSource(Protocol):
    """What a sheet needs of a source of tiles (see ``openselfsup.datasets``)."""

    def read(self, i: int) -> np.ndarray:
        """Return tile ``i``, uint8 [H, W, 3] RGB."""

    def path(self, i: int) -> str:
        """Return where tile ``i`` came from."""


def view_sheet(batch: dict[str, Any], path: str | Path, *, source: TileSource | None = None,
               names: Sequence[str] | None = None,
               normalize: dict | None = None, title: str = 'Views as the model sees them',
               captions: list[str] | None = None, rows: int = 8, blocks: int = 2,
               side: float = 84.0) -> Path:
    """Draw the samples of a batch: the tile with the outlines of its views, and the views.

    Args:
        batch: ``views``: list of V tensors [B, 3, S, S], uint8, or floating point together
            with ``normalize``; ``view_to_tile``: float [B, V, 2, 3], or None when the
            geometry is unknown; ``index``: int64 [B].
        path: the PNG to write.
        source: where ``index`` points to; without it no tile is shown behind the outlines.
        names: the names of the V views; 'view 1', 'view 2', ... without.
        normalize: ``mean`` and ``std`` to undo on floating-point views.
        title: printed on top.
        captions: a line under each sample; default is the end of the tile's path.
        rows: samples below each other.
        blocks: samples beside each other; the first ``rows * blocks`` of the batch are drawn.
        side: side of a view on paper, in points.

    Returns:
        The path of the PNG.

    Raises:
        ValueError: floating-point views without ``normalize``.
    """
    views, maps = batch['views'], batch.get('view_to_tile')
    with_tile = source is not None or maps is not None
    count = min(len(views[0]), rows * blocks)
    blocks = min(blocks, count)
    rows = math.ceil(count / blocks)
    columns = len(views) + with_tile
    block_width = columns * (side + GAP) - GAP
    row_height = side + CAPTION + ROW_GAP
    canvas = Canvas(2 * MARGIN + blocks * (block_width + BLOCK_GAP) - BLOCK_GAP,
                    MARGIN + HEADER + HEADINGS + rows * row_height)

    names = names or [f'view {v + 1}' for v in range(len(views))]
    _write_header(canvas, title, names, known=maps is not None)
    for block in range(blocks):
        left = MARGIN + block * (block_width + BLOCK_GAP)
        _write_headings(canvas, left, side, names, with_tile)
    for sample in range(count):
        left = MARGIN + (sample % blocks) * (block_width + BLOCK_GAP)
        top = MARGIN + HEADER + HEADINGS + (sample // blocks) * row_height
        panels = [Panel(left + c * (side + GAP), top, side, side) for c in range(columns)]
        if with_tile:
            tile = source.read(int(batch['index'][sample])) if source is not None else None
            draw_tile(canvas, panels.pop(0), tile, None if maps is None else maps[sample])
        for v, panel in enumerate(panels):
            image = to_image(views[v][sample], normalize)
            panel = panel.fit(*image.shape[:2])
            canvas.image(image, panel)
            if maps is not None:
                draw_view_frame(canvas, panel, UNIT_SQUARE, view_color(v), width=1.0, casing=0.0)
            else:
                canvas.frame(panel, view_color(v), 1.0)
        caption = (captions[sample] if captions is not None
                   else tile_name(source, int(batch['index'][sample])))
        canvas.text(left, top + side + 8.5, caption, size=5.8, color=SOFT_INK,
                    max_width=block_width)
    return canvas.save(path)


def draw_tile(canvas: Canvas, panel: Panel, tile: np.ndarray | None,
              view_to_tile: Tensor | None) -> Panel:
    """Draw a tile with the outlines of its views; returns the panel that the tile fills.

    Args:
        canvas: where to draw.
        panel: the room for it.
        tile: uint8 [H, W, 3], or None for an empty square.
        view_to_tile: float [V, 2, 3], or None for no outlines. What reaches outside the
            tile is cut off a little beyond its edge.
    """
    inner = panel.fit(*(tile.shape[:2] if tile is not None else (1, 1)))
    if tile is not None:
        canvas.image(tile, inner)
    else:
        canvas.polygon(inner.at(UNIT_SQUARE), fill='#F1F1F1')
    canvas.frame(inner)
    room = Panel(inner.x - 2, inner.y - 2, inner.width + 4, inner.height + 4)
    corners = [] if view_to_tile is None else [outline(matrix) for matrix in view_to_tile]
    for v, points in enumerate(corners):
        draw_view_frame(canvas, inner, points, view_color(v), clip=room)
    for v, points in enumerate(corners[:-1]):  # where outlines coincide, both colours show
        canvas.line(inner.at(points[[0, 1, 2, 3, 0]]), view_color(v), 1.2, dashes=(4, 4),
                    clip=room)
    return inner


def _write_header(canvas: Canvas, title: str, names: Sequence[str], known: bool) -> None:
    canvas.text(MARGIN, MARGIN + 8, title, size=10, bold=True,
                max_width=canvas.width - 2 * MARGIN)
    x, y = MARGIN, MARGIN + 22
    if not known:
        canvas.text(x, y, 'This recipe distorts the views: where they lie on the tile is not '
                    'known.', size=6.5, color=SOFT_INK, max_width=canvas.width - 2 * MARGIN)
        return
    for v, name in enumerate(names):
        canvas.line([(x, y - 2.2), (x + 12, y - 2.2)], view_color(v), 1.6)
        x += 15 + canvas.text(x + 15, y, name, size=6.5, color=SOFT_INK) + 10
    canvas.text(x, y, 'thick tick: upper edge of the view, from its upper left corner',
                size=6.5, color=SOFT_INK, max_width=canvas.width - MARGIN - x)


def _write_headings(canvas: Canvas, left: float, side: float, names: Sequence[str],
                    with_tile: bool) -> None:
    colors = [SOFT_INK] * with_tile + [view_color(v) for v in range(len(names))]
    for column, (name, color) in enumerate(zip(['tile'] * with_tile + [*names], colors)):
        canvas.text(left + column * (side + GAP), MARGIN + HEADER + 8, name, size=7, color=color,
                    bold=True, max_width=side)


def tile_name(source: TileSource | None, index: int) -> str:
    """Return the last folder and the name of a tile's file, or its number without a source."""
    return '/'.join(Path(source.path(index)).parts[-2:]) if source is not None else f'#{index}'
