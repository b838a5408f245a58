"""Tiles with masks of classes: folders of images and equally named masks."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..datasets.decode import read_tile
from ..datasets.prepare.files import files_in
from ..datasets.prepare.glands import IMAGES
from ..errors import UserError


class MaskDataset:
    """Pairs of images and masks.

    Args:
        images: folder of images.
        masks: folder of 8-bit masks with the same stems.
        classes: names of the classes 0, 1, ...
        ignore_index: value of pixels that do not count, after ``codes``.
        codes: class by code of the masks, where these are no classes yet; codes that are not
            named are ignored.

    Attributes:
        names: file names of the images, in natural order.

    Raises:
        UserError: a folder is missing, there is no pair, or an image has no mask.
    """

    def __init__(self, images: str | Path, masks: str | Path, classes: list[str],
                 ignore_index: int = 255, codes: dict[int, int] | None = None):
        self.classes, self.ignore_index = list(classes), ignore_index
        for folder in (images, masks):
            if not Path(folder).is_dir():
                raise UserError('no such folder', where=str(folder))
        by_stem = {p.stem: p for p in files_in(Path(masks), ('.png', '.bmp', '.tif', '.tiff'))}
        paths = files_in(Path(images), IMAGES)
        alone = [p.name for p in paths if p.stem not in by_stem]
        if alone or not paths:
            raise UserError(f'{len(alone)} of {len(paths)} images have no mask: '
                            f'{", ".join(alone[:5])}' if paths else 'there is not one image',
                            where=str(images), expected=f'masks of the same names in {masks}')
        self.pairs = [(p, by_stem[p.stem]) for p in paths]
        self.names = [p.name for p in paths]
        self.table = None
        if codes is not None:
            self.table = np.full(256, ignore_index, np.uint8)
            for code, label in codes.items():
                self.table[int(code)] = label

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image, uint8 [H, W, 3] RGB, and its classes, uint8 [H, W].

        Raises:
            UserError: sizes differ, or the mask holds a value that is neither class nor ignored.
        """
        image_path, mask_path = self.pairs[index]
        image = read_tile(image_path)
        with Image.open(mask_path) as file:
            mask = np.asarray(file)
        mask = mask[..., 0] if mask.ndim == 3 else mask
        mask = self.table[mask] if self.table is not None else mask.astype(np.uint8)
        if mask.shape != image.shape[:2]:
            raise UserError(f'is {mask.shape[1]} x {mask.shape[0]} px, its image is '
                            f'{image.shape[1]} x {image.shape[0]} px', where=str(mask_path))
        wrong = set(np.unique(mask).tolist()) - {*range(len(self.classes)), self.ignore_index}
        if wrong:
            raise UserError(f'holds the values {sorted(wrong)}', where=str(mask_path),
                            expected=f'0 to {len(self.classes) - 1}, or {self.ignore_index} for '
                                     'pixels that do not count')
        return image, mask


def read_classes(folder: str | Path) -> tuple[list[str], int]:
    """Return class names and ignored value that tools/prepare_data.py wrote beside the tiles."""
    path = Path(folder) / 'classes.json'
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        raise UserError('there is no such list of classes', where=str(path),
                        expected='a folder of tools/prepare_data.py, or data.classes in the '
                                 'config') from None
    return content['classes'], content['ignore_index']


def crop_batch(data: MaskDataset, indices: list[int], size: int,
               rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Read a training batch of random crops, flipped and turned by quarters at random.

    Args:
        data: the tiles.
        indices: B of them.
        size: side of the crops; smaller tiles are filled up with ignored white.
        rng: decides the crops.

    Returns:
        uint8 images [B, 3, size, size], and int64 classes [B, size, size].
    """
    images, masks = [], []
    for index in indices:
        image, mask = data.read(index)
        bottom, right = (max(size - n, 0) for n in mask.shape)
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT,
                                   value=(255, 255, 255))
        mask = cv2.copyMakeBorder(mask, 0, bottom, 0, right, cv2.BORDER_CONSTANT,
                                  value=data.ignore_index)
        y, x = (int(rng.integers(0, n - size + 1)) for n in mask.shape)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        for part, found in ((image, images), (mask, masks)):
            part = np.rot90(part[y:y + size, x:x + size], turns)
            found.append(np.ascontiguousarray(part[:, ::-1] if flip else part))
    return (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
            torch.from_numpy(np.stack(masks)).long())
