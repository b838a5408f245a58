"""Where a backbone finds the like of a place: similarity of one cell to those of other images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from torch import Tensor, nn

from ..evaluation.dense.features import LAST_TWO, Images
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD
from .canvas import INK, UNIT_SQUARE, Canvas, Panel, view_color
from .cells import GAP, HEADER, LABEL, MARGIN, cell_features, enlarged, sheet

COLOURS, OPACITY = matplotlib.colormaps['viridis'], 0.72
PERCENTILES = (2, 99.8)  # of the similarities of a row: the ends of its colours
MARK = view_color(1)


def likeness_sheet(backbones: Mapping[str, nn.Module], source: Images, indices: Sequence[int],
                   place: tuple[float, float], path: str | Path, *, layers: str = LAST_TWO,
                   scale: float = 2.0, title: str = 'Where the marked place finds its like',
                   side: float = 88.0, mean: Sequence[float] = IMAGENET_MEAN,
                   std: Sequence[float] = IMAGENET_STD) -> Path:
    """Draw how similar every cell of some images is to one marked cell of the first.

    Similarity is the cosine after the mean of all cells of a row was taken away: without this
    all cells of an untrained backbone are nearly the same. The colours of a row span its own
    similarities; a square marks the most similar cell of each further image.

    Args:
        backbones: by the names that stand beside their rows.
        source: images, such as a source of tiles.
        indices: which of them are drawn; the first one is asked about.
        place: (x, y) in it, in [0, 1].
        path: the PNG to write.
        layers, scale, mean, std: as for :func:`~.cells.cell_features`.
        title: printed on top.
        side: side of an image on paper, in points.

    Returns:
        The path of the PNG.
    """
    images = [source.read(i) for i in indices]
    canvas = sheet(len(images), 1 + len(backbones), side, title,
                   'Yellow: features like those of the place marked in the first image. A square: '
                   'the most similar cell.')
    left, top = MARGIN + LABEL, MARGIN + HEADER
    panels = [Panel(left + column * (side + GAP), top, side, side).fit(*image.shape[:2])
              for column, image in enumerate(images)]
    canvas.text(MARGIN, top + 12, 'tissue', size=8, bold=True, color=INK)
    for panel, image in zip(panels, images):
        canvas.image(image, panel)
    for row, (name, backbone) in enumerate(backbones.items(), 1):
        maps = likeness(cell_features(backbone, source, indices, layers, scale, mean, std), place)
        down = row * (side + GAP)
        moved = [panel._replace(y=panel.y + down) for panel in panels]
        canvas.text(MARGIN, top + down + 12, name, size=8, bold=True, max_width=LABEL - 8)
        _draw_row(canvas, moved, images, maps)
        if row == 1:
            _outline(canvas, panels[0], maps[0].shape, cell_at(place, maps[0].shape))
        _outline(canvas, moved[0], maps[0].shape, cell_at(place, maps[0].shape))
    return canvas.save(path)


def likeness(features: Sequence[Tensor], place: tuple[float, float]) -> list[np.ndarray]:
    """Return the similarity of all cells to the one at a place of the first image.

    Args:
        features: of the cells of N images, each (D, h, w).
        place: (x, y) in the first one, in [0, 1].

    Returns:
        N arrays float32 (h, w): cosines in [-1, 1] of features from which the mean of all
        cells was subtracted.
    """
    mean = torch.cat([f.flatten(1) for f in features], 1).mean(1)[:, None, None]
    centred = [torch.nn.functional.normalize(f - mean, dim=0) for f in features]
    row, column = cell_at(place, features[0].shape[1:])
    asked = centred[0][:, row, column]
    return [torch.einsum('d,dhw->hw', asked, f).numpy() for f in centred]


def cell_at(place: tuple[float, float], grid: Sequence[int]) -> tuple[int, int]:
    """Return row and column of the cell of a grid (h, w) that a place (x, y) lies in."""
    return min(int(place[1] * grid[0]), grid[0] - 1), min(int(place[0] * grid[1]), grid[1] - 1)


def _draw_row(canvas: Canvas, panels: Sequence[Panel], images: Sequence[np.ndarray],
              maps: Sequence[np.ndarray]) -> None:
    """Lay the similarities over grey tissue, and mark the highest of each image but the first."""
    low, high = np.percentile(np.concatenate([m.ravel() for m in maps]), PERCENTILES)
    for number, (panel, image, found) in enumerate(zip(panels, images, maps)):
        share = enlarged((found - low) / max(high - low, 1e-12), *image.shape[:2]).clip(0, 1)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] / 255
        mixed = OPACITY * COLOURS(share)[..., :3] + (1 - OPACITY) * grey
        canvas.image((mixed * 255).round().astype(np.uint8), panel)
        if number:
            row, column = np.unravel_index(found.argmax(), found.shape)
            _outline(canvas, panel, found.shape, (int(row), int(column)))


def _outline(canvas: Canvas, panel: Panel, grid: Sequence[int], cell: tuple[int, int]) -> None:
    """Draw a square around a cell (row, column) of a grid (h, w)."""
    corner = np.array(cell[::-1]) / grid[::-1]
    size = 1 / np.array(grid[::-1])
    canvas.polygon(panel.at(corner + UNIT_SQUARE * size), MARK, 1.2, casing=0.8)
