"""What a backbone tells apart within tissue: principal components of its cells as colours."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..evaluation.dense.features import LAST_TWO, Images
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD
from .canvas import INK, SOFT_INK, Panel
from .cells import GAP, HEADER, LABEL, MARGIN, cell_features, enlarged, sheet

PERCENTILES = (2, 98)  # of a component, shown as black and as full colour


def component_sheet(backbones: Mapping[str, nn.Module], source: Images, indices: Sequence[int],
                    path: str | Path, *, layers: str = LAST_TWO, scale: float = 2.0,
                    title: str = 'Principal components of dense features', side: float = 100.0,
                    mean: Sequence[float] = IMAGENET_MEAN,
                    std: Sequence[float] = IMAGENET_STD) -> Path:
    """Draw tissue, and under it, for each backbone, the components of its cells as colours.

    The first three components of the cells of all images together are red, green and blue:
    cells of one colour have features that are alike, within an image and across images.
    Colours of two backbones mean different things.

    Args:
        backbones: by the names that stand beside their rows.
        source: images, such as a source of tiles.
        indices: which of them are drawn.
        path: the PNG to write.
        layers, scale, mean, std: as for :func:`~.cells.cell_features`.
        title: printed on top.
        side: side of an image on paper, in points.

    Returns:
        The path of the PNG.
    """
    images = [source.read(i) for i in indices]
    canvas = sheet(len(images), 1 + len(backbones), side, title,
                   'One colour: features that are alike. Red, green and blue are the first three '
                   'components of all cells of a row.')
    rows = [('tissue', '', images)]
    for name, backbone in backbones.items():
        features = cell_features(backbone, source, indices, layers, scale, mean, std)
        colours, shares = component_colours(features, images)
        height, wide = features[0].shape[1:]
        note = f'{100 * float(shares.sum()):.0f} % of variance\n{height} x {wide} cells'
        rows.append((name, note, [enlarged(colour, *image.shape[:2])
                                  for colour, image in zip(colours, images)]))
    for row, (name, note, pictures) in enumerate(rows):
        top = MARGIN + HEADER + row * (side + GAP)
        canvas.text(MARGIN, top + 12, name, size=8, bold=True, color=INK, max_width=LABEL - 8)
        for line, text in enumerate(note.splitlines()):
            canvas.text(MARGIN, top + 24 + 10 * line, text, size=6.5, color=SOFT_INK,
                        max_width=LABEL - 8)
        for column, image in enumerate(pictures):
            place = Panel(MARGIN + LABEL + column * (side + GAP), top, side, side)
            canvas.image(image, place.fit(*image.shape[:2]))
    return canvas.save(path)


def component_colours(features: Sequence[Tensor], images: Sequence[np.ndarray]
                      ) -> tuple[list[np.ndarray], Tensor]:
    """Return the first three principal components of cells as colours.

    Args:
        features: of the cells of N images, each (D, h, w).
        images: the images, each uint8 (H, W, 3): they settle the signs of the components, which
            grow with the brightness of the tissue.

    Returns:
        N arrays uint8 (h, w, 3), and the shares of the variance of the three components, (3,).
    """
    cells = torch.cat([f.flatten(1).T for f in features])
    guide = np.concatenate([
        cv2.resize(image, f.shape[:0:-1], interpolation=cv2.INTER_AREA).mean(2).ravel()
        for f, image in zip(features, images)])
    values, shares = principal_components(cells, torch.from_numpy(guide))
    pixels = colours_of(values.numpy())
    parts = np.split(pixels, np.cumsum([f[0].numel() for f in features])[:-1])
    return [p.reshape(*f.shape[1:], 3) for p, f in zip(parts, features)], shares


def colours_of(values: np.ndarray) -> np.ndarray:
    """Return values along three components, (N, 3), as colours, uint8 (N, 3)."""
    low, high = np.percentile(values, PERCENTILES, axis=0)
    scaled = (values - low) / np.maximum(high - low, 1e-12)
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)


def principal_components(cells: Tensor, guide: Tensor, count: int = 3) -> tuple[Tensor, Tensor]:
    """Return values along the principal components, and the share of variance of each.

    Args:
        cells: (N, D).
        guide: (N,): the sign of a component is the one that does not fall with it.
        count: how many, by falling variance; those beyond D are 0.

    Returns:
        float64 (N, count) and (count,).
    """
    centred = cells.double() - cells.double().mean(0)
    variance, axes = torch.linalg.eigh(centred.T @ centred)
    variance, axes = variance.flip(0).clamp(min=0), axes.flip(1)
    values = centred.new_zeros(len(cells), count)
    shares = centred.new_zeros(count)
    known = min(count, cells.shape[1])
    values[:, :known] = centred @ axes[:, :known]
    shares[:known] = variance[:known] / variance.sum().clamp(min=1e-30)
    rises = values.T @ (guide.double() - guide.double().mean())
    return values * torch.where(rises < 0, -1.0, 1.0), shares
