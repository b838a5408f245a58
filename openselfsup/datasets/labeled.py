"""The evaluation dataset: tiles and their labels."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..registry import DATASETS
from ..values import Count
from .sources import Source, build_source
from .tile_error import read_checked

if TYPE_CHECKING:
    from .tiles import TileDataset


@DATASETS.register_module()
class LabeledTileDataset:
    """Tiles with labels, un-augmented, of one size: for evaluation.

    The short side is resized to ``resize``, then the centre is cropped to ``size``. An
    unreadable tile is always an error: leaving it out would change the result.

    Args:
        source: where the tiles come from; it must have labels.
        size: side of the returned square in pixels.
        resize: short side before the crop; ``size`` by default.
        check: check existence and headers of all tiles now.

    Attributes:
        labels: int64 tensor of shape (N,).
        classes: names of the labels, or None.
    """

    def __init__(self, source: dict | Source, size: Count = 224, resize: Count | None = None,
                 check: bool = True):
        self.source = build_source(source)
        self.size, self.resize = size, resize or size
        if self.source.labels is None:
            raise self.source.fault or UserError(
                'these tiles have no labels', where=self.source.path(0),
                expected="class folders, or lines of the form 'path label'")
        if self.resize < size:
            raise UserError(f'resize={resize} is less than size={size}', where='dataset.resize')
        self.labels = torch.from_numpy(self.source.labels)
        self.classes = self.source.classes
        if check:
            self.source.check()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return tile ``index`` as uint8 tensor of shape (3, size, size), and its label."""
        tile = resize_and_crop(read_checked(self.source, index), self.resize, self.size)
        return torch.from_numpy(tile).permute(2, 0, 1), int(self.labels[index])


class PlainTiles:
    """The tiles of a training data set, un-augmented, of one size.

    An unreadable tile is replaced as in training.

    Args:
        dataset: the data set.
        size: side of the returned square in pixels.
        resize: short side before the crop, at least ``size``.
        places: which tiles; all if None.
    """

    def __init__(self, dataset: 'TileDataset', size: int, resize: int,
                 places: np.ndarray | None = None):
        self.dataset, self.size, self.resize = dataset, size, resize
        self.places = np.arange(len(dataset)) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return tile ``index`` as uint8 tensor of shape (3, size, size), and 0 as its label."""
        tile, _ = self.dataset.read(int(self.places[index]))
        return torch.from_numpy(resize_and_crop(tile, self.resize, self.size)).permute(2, 0, 1), 0

    def part(self, places: np.ndarray) -> 'PlainTiles':
        """Return the tiles at some places of the data set."""
        return PlainTiles(self.dataset, self.size, self.resize, places)


def resize_and_crop(tile: np.ndarray, resize: int, size: int) -> np.ndarray:
    """Resize the short side of a tile, then crop its centre.

    Args:
        tile: uint8 array of shape (H, W, 3).
        resize: short side in pixels after resizing.
        size: side of the centre crop in pixels.

    Returns:
        uint8 array of shape (size, size, 3).
    """
    height, width = tile.shape[:2]
    short = min(height, width)
    if short != resize:
        # INTER_AREA averages over what it shrinks; the other does not alias when enlarging.
        how = cv2.INTER_AREA if resize < short else cv2.INTER_CUBIC
        target = (round(width * resize / short), round(height * resize / short))
        tile = cv2.resize(tile, target, interpolation=how)
    top, left = (tile.shape[0] - size) // 2, (tile.shape[1] - size) // 2
    return np.ascontiguousarray(tile[top:top + size, left:left + size])
