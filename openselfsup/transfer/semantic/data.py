"""Tiles with masks of classes: folders of images and equally named masks."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ...datasets.decode import read_tile
from ...datasets.prepare.mask_codes import CodeTable
from ...datasets.prepare.mask_folders import Pair, judge, pair_masks, survey
from ...datasets.prepare.masks import read_mask
from ...datasets.prepare.report import Report
from ...datasets.sources import FileSource
from ...errors import UserError, listed
from ...evaluation.copies import same_files
from ...files import read_json
from .config import SemanticConfig


class MaskDataset:
    """Pairs of images and masks.

    Args:
        pairs: images and their masks.
        table: which code is which class.

    Attributes:
        names: file names of the images.
        classes: names of the classes.
        ignore_index: value of pixels that do not count.
    """

    def __init__(self, pairs: Sequence[Pair], table: CodeTable):
        self.pairs, self.table = list(pairs), table
        self.classes, self.ignore_index = table.classes, table.ignore_index
        self.names = [image.name for image, _ in pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image, uint8 [H, W, 3] RGB, and its classes, uint8 [H, W].

        Raises:
            UserError: sizes differ, or the mask holds a value that is neither class nor ignored.
        """
        image_path, mask_path = self.pairs[index]
        image, mask = read_tile(image_path), read_mask(mask_path, self.table.colours)
        if mask.values.shape != image.shape[:2]:
            height, width = mask.values.shape
            raise UserError(f'is {width} x {height} px, its image is {image.shape[1]} x '
                            f'{image.shape[0]} px', where=str(mask_path))
        labels = self.table.labels(mask)
        if mask.colours != self.table.colours or (labels < 0).any():
            raise UserError('holds values that are no class', where=str(mask_path))
        return image, labels.astype(np.uint8)


def open_data_sets(config: SemanticConfig) -> tuple[MaskDataset, MaskDataset, Report]:
    """Read what a config names, down to the last mask.

    Returns:
        The training and the test set, and what was found in them: facts and notes.

    Raises:
        UserError: everything that cannot be trained on or scored, in one report.
    """
    c = config
    folders = [c.train_images, c.train_masks, c.test_images, c.test_masks]
    classes, ignore = c.classes, 255
    if c.data is not None:
        folders = [str(Path(c.data) / split / kind) for split in ('train', 'test')
                   for kind in ('images', 'masks')]
        if classes is None:
            classes, ignore = read_classes(c.data)
    if None in folders or not classes:
        raise UserError('the config names no data', expected='data: FOLDER, or train_images, '
                        'train_masks, test_images, test_masks and classes')
    ignore = ignore if c.ignore_index is None else c.ignore_index
    table, report = CodeTable(classes, ignore, c.codes), Report('tiles with masks')
    train_images, train_masks, test_images, test_masks = map(str, folders)
    pairs = [pair_masks(train_images, train_masks, report),
             pair_masks(test_images, test_masks, report)]
    train, test = (survey(own, table, name, report)
                   for own, name in zip(pairs, ('train', 'test')))
    if not report.problems:
        judge(train, test, table, report)
        _tell_shared(pairs[0], pairs[1], report)
    if report.problems:
        raise UserError(listed(f'{len(report.problems)} problems of the images and masks',
                               report.problems))
    return MaskDataset(pairs[0], table), MaskDataset(pairs[1], table), report


def _tell_shared(train: Sequence[Pair], test: Sequence[Pair], report: Report) -> None:
    """Note the images of the test that are training images, byte by byte the same."""
    learnt, tested = same_files(*(FileSource([str(image) for image, _ in pairs], None, None, '')
                                  for pairs in (train, test)))
    shared = np.flatnonzero(np.isin(tested, learnt))
    if len(shared):
        report.note('test images', f'{len(shared)} of {len(test)} are training images too, such '
                    f'as {test[shared[0]][0].name}: the scores will be too good')


def read_classes(folder: str | Path) -> tuple[list[str], int]:
    """Return class names and ignored value that openselfsup prepare wrote beside the tiles.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    path = Path(folder) / 'classes.json'
    if not path.is_file():
        raise UserError('there is no such list of classes', where=str(path),
                        expected='a folder of openselfsup prepare, or classes in the config')
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get('classes'), list):
        raise UserError("holds no list 'classes'", where=str(path))
    return content['classes'], content.get('ignore_index', 255)


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
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
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
