"""Dense features of a few images, for the pictures that show them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from ..evaluation.dense.features import (
    LAST_TWO,
    Images,
    find_layers,
    grain_of,
    patch_features,
    resized,
)
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD
from .canvas import SOFT_INK, Canvas

#: Least pixels of an enlarged image that are mirrored beyond each of its edges. The cells there are
#: cut off: they, not those of the image, see the zeros with which convolutions pad.
RIM = 96
MARGIN, HEADER, GAP, LABEL = 12.0, 34.0, 7.0, 88.0  # of a sheet, in points


@dataclass(frozen=True)
class Mirrored:
    """Images enlarged to multiples of a grain, and mirrored at their edges.

    Attributes:
        source: where they come from.
        indices: which ones, in their order.
        scale: of both sides.
        grain: what both sides and the rim become multiples of, in pixels.
    """

    source: Images
    indices: Sequence[int]
    scale: float
    grain: int

    @property
    def rim(self) -> int:
        """How many pixels are mirrored beyond each edge."""
        return -(-RIM // self.grain) * self.grain

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> np.ndarray:
        """Return an image with its rim, uint8 (H, W, 3)."""
        image = resized(self.source.read(self.indices[index]), self.scale, self.grain)
        rim = self.rim
        return cv2.copyMakeBorder(image, rim, rim, rim, rim, cv2.BORDER_REFLECT_101)

    def path(self, index: int) -> str:
        """Return what a message should call it."""
        return self.source.path(self.indices[index])


def cell_features(backbone: nn.Module, source: Images, indices: Sequence[int],
                  layers: str = LAST_TWO, scale: float = 2.0, mean: Sequence[float] = IMAGENET_MEAN,
                  std: Sequence[float] = IMAGENET_STD) -> list[Tensor]:
    """Return the features of the cells of images, vectors of length 1.

    Args:
        backbone: maps normalised images (B, 3, H, W) to a list of feature maps; of a ResNet all
            stages can be asked for.
        source: images, such as a source of tiles.
        indices: which N of them.
        layers: which feature maps, laid over each other; see
            :func:`~openselfsup.evaluation.dense.features.find_layers`.
        scale: enlarges the images, so that there are more and finer cells.
        mean, std: normalisation of values in [0, 1].

    Returns:
        N tensors (D, h, w), float32 on the CPU.

    Raises:
        UserError: there are no such layers, or features are not finite.
    """
    chosen, = find_layers(backbone, [layers])
    images = Mirrored(source, indices, scale, grain_of([chosen]))
    rim = images.rim // chosen.stride
    return [F.normalize(image[:, rim:-rim, rim:-rim], dim=0)
            for _, found in patch_features(backbone, images, [chosen], 1.0, 4, mean, std)
            for image in found[0]]


def enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate values of cells, (h, w) or (h, w, 3), smoothly to the pixels of an image."""
    return cv2.resize(np.ascontiguousarray(values), (width, height),
                      interpolation=cv2.INTER_CUBIC)


def sheet(columns: int, rows: int, side: float, title: str, lead: str) -> Canvas:
    """Return an empty sheet of labelled rows of images, under a title and what it shows.

    Args:
        columns: images of a row.
        rows: how many.
        side: of an image, in points.
        title: printed on top.
        lead: under the title.
    """
    canvas = Canvas(2 * MARGIN + LABEL + columns * (side + GAP) - GAP,
                    2 * MARGIN + HEADER + rows * (side + GAP) - GAP)
    width = canvas.width - 2 * MARGIN
    canvas.text(MARGIN, MARGIN + 8, title, size=10, bold=True, max_width=width)
    canvas.text(MARGIN, MARGIN + 21, lead, size=7, color=SOFT_INK, max_width=width)
    return canvas
