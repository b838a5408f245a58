"""Images and their masks: pairs of files, and which value of a mask is which class."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...checkpoints.names import shorten
from ...datasets.headers import SUFFIXES
from ...datasets.listing import list_files
from ...datasets.parallel import default_workers
from ...datasets.prepare.masks import LOSSY, MASKS, Mask, read_mask
from ...datasets.sources import FileSource
from ...errors import UserError, listed, nearest

#: What the stem of a mask may have behind the stem of its image.
ENDINGS = ('_anno', '_mask', '_masks', '_label', '_labels', '_gt', '_seg')
IGNORED = 255  # class of pixels that do not count
MOST_CLASSES = 32  # more values than that are instance ids, or no masks at all


@dataclass(frozen=True)
class Codes:
    """Which value of a mask is which class.

    Attributes:
        classes: names of the classes 0, 1, ...
        values: value of each class, rising; empty where 0 is background and all others are
            foreground.
        ignored: value of pixels that do not count, None for none.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...] = ()
    ignored: int | None = None

    def labels(self, values: np.ndarray, where: str) -> np.ndarray:
        """Map the values of a mask (H, W) to classes, uint8 (H, W); :data:`IGNORED` where none.

        Raises:
            UserError: a value that is no class.
        """
        if not self.values:
            return (values > 0).astype(np.uint8)
        known = np.array(self.values)  # in rising order
        place = np.searchsorted(known, values).clip(max=len(known) - 1)
        found = place.astype(np.uint8)
        if self.ignored is not None:
            found[values == self.ignored] = IGNORED
        strange = np.unique(values[(known[place] != values) & (found != IGNORED)])
        if len(strange):
            raise UserError(f'holds the value {shorten(strange)}, which no training mask has',
                            where=where, expected=f'{shorten(self.values, MOST_CLASSES)}')
        return found


_TWO = ('background', 'foreground')


class MaskedImages(FileSource):
    """Images with a mask each.

    Args:
        pairs: paths of images and of their masks.
        codes: which value of a mask is which class.
        name: what messages call them.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], codes: Codes, name: str):
        super().__init__([image for image, _ in pairs], None, list(codes.classes), name)
        self.pairs, self.codes = list(pairs), codes
        self.masks = FileSource([mask for _, mask in pairs], None, None, name)

    def read_labels(self, index: int) -> np.ndarray:
        """Return the class of each pixel of an image, uint8 (H, W); see :meth:`Codes.labels`."""
        path = self.pairs[index][1]
        return self.codes.labels(_read(path).values, path)

    def part(self, indices: np.ndarray) -> 'MaskedImages':
        """Return some of the images."""
        return MaskedImages([self.pairs[i] for i in indices], self.codes, self.name)


def pair_up(images: str, masks: str, flags: str) -> list[tuple[str, str]]:
    """Return paths of images and of their masks: those of the same relative path and stem.

    The stem of a mask may have one of :data:`ENDINGS` behind that of its image; where images and
    masks lie in one folder, that is what makes a file a mask.

    Args:
        images, masks: the folders, which may be the same.
        flags: what named them, for messages.

    Raises:
        UserError: no such folder, nothing in it, an image without a mask, a mask without an image,
            two files for one.
    """
    one = os.path.realpath(images) == os.path.realpath(masks)
    own = {path: _stem(path) for path in list_files(images, SUFFIXES).paths}
    theirs = {path: _stem(path) for path in list_files(masks, (*MASKS, *LOSSY)).paths}
    if one:
        theirs = {path: stem for path, stem in theirs.items() if _bare(stem) != stem}
        own = {path: stem for path, stem in own.items() if path not in theirs}
    for found, folder, what in ((own, images, 'image'), (theirs, masks, 'mask')):
        if not found:
            raise UserError(f'there is not one {what}', where=folder, expected='files ending in '
                            + ', '.join(SUFFIXES if what == 'image' else MASKS)
                            + (f', masks with a name ending in {", ".join(ENDINGS)}' if one
                               else ''))
    stems = set(own.values())
    of: dict[str, list[str]] = {stem: [] for stem in stems}
    alone = []
    for path, stem in theirs.items():
        match = stem if stem in stems else _bare(stem)
        if match in stems:
            of[match].append(path)
        else:
            alone.append(path)
    problems = [f'{stem}: has {len(of[stem])} masks: {shorten(of[stem])}'
                for stem in sorted(stems) if len(of[stem]) > 1]
    problems += [f'{path}: has no mask' + (f"; is it '{close}'?" if (
        close := nearest(stem, alone)) else '') for path, stem in own.items() if not of[stem]]
    problems += [f'{path}: is a mask without an image' for path in alone]
    if len(stems) < len(own):
        several = [stem for stem in stems if list(own.values()).count(stem) > 1]
        problems.append(f'more than one image of one name: {shorten(sorted(several))}')
    if problems:
        raise UserError(listed(f'{flags}: {len(problems)} files of {images} and {masks} do not '
                               'pair up', problems))
    return [(os.path.join(images, path), os.path.join(masks, of[stem][0]))
            for path, stem in own.items()]


def find_codes(pairs: Sequence[tuple[str, str]], instances: bool
               ) -> tuple[Codes, str, list[set[int]]]:
    """Read the training masks and tell which value is which class.

    Masks of 0 and 255 alone are background and foreground. Otherwise every value is a class of
    its own, except 255, which marks pixels that do not count.

    Args:
        pairs: images and masks of the training part.
        instances: masks hold 0 and the ids of objects: all objects are foreground.

    Returns:
        The codes, a sentence that says how they were found, and the values of each mask.

    Raises:
        UserError: all masks that cannot be read or differ in size from their image, values that
            are too many to be classes, or a single class.
    """
    by_mask = check_pairs(pairs)
    values = sorted(set().union(*by_mask))
    where = str(Path(pairs[0][1]).parent)
    if instances:
        if values[0] != 0 or len(values) < 2:
            raise UserError(f'the training masks hold {shorten(values)}', where=where,
                            expected='0 and ids of objects above it, as --instances says')
        return (Codes(_TWO), 'The masks hold ids of objects: 0 is background, all others '
                'foreground.', by_mask)
    if values == [0, 255]:
        return (Codes(_TWO, (0, 255)),
                'The masks hold 0 and 255 alone: 0 is background, 255 is foreground.', by_mask)
    ignored = 255 if 255 in values else None
    classes = [value for value in values if value != ignored]
    if len(classes) < 2:
        raise UserError(f'the training masks hold one class only: the values {shorten(values)}',
                        where=where, expected='two classes or more')
    if len(classes) > MOST_CLASSES:
        raise UserError(f'the training masks hold {len(classes)} values: {shorten(classes)}',
                        where=where, expected=f'at most {MOST_CLASSES} classes, or --instances '
                                              'where 0 is background and the others are objects')
    text = f'Every value of the masks is a class: {shorten(classes, MOST_CLASSES)}'
    return (Codes(tuple(map(str, classes)), tuple(classes), ignored),
            text + ('; pixels of 255 do not count.' if ignored else '.'), by_mask)


def check_pairs(pairs: Sequence[tuple[str, str]]) -> list[set[int]]:
    """Return the values of each mask.

    Raises:
        UserError: masks that cannot be read, hold colours, or differ in size from their image.
    """
    headers = FileSource([image for image, _ in pairs], None, None,
                         os.path.dirname(pairs[0][0])).check()

    def look(path: str) -> tuple[tuple[int, ...], set[int]] | UserError:
        try:
            values = _read(path).values
        except UserError as error:
            return error
        return values.shape, set(np.unique(values).tolist())

    found, problems = [], []
    with ThreadPoolExecutor(default_workers(), 'masks') as pool:
        looks = pool.map(look, [mask for _, mask in pairs])
        for (image, mask), header, seen in zip(pairs, headers, looks):
            if isinstance(seen, UserError):
                problems.append(str(seen))
                continue
            (height, width), values = seen
            if (height, width) != (header.height, header.width):
                problems.append(f'{mask}: is {width} x {height} px, its image {image} is '
                                f'{header.width} x {header.height} px')
            found.append(values)
    if problems:
        raise UserError(listed(f'{len(problems)} of {len(pairs)} masks cannot be used', problems))
    return found


def _read(path: str) -> Mask:
    mask = read_mask(path)
    if mask.colours:
        raise UserError('holds colours', where=path,
                        expected='one value a pixel, the number of its class')
    return mask


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def _bare(stem: str) -> str:
    """Return the stem of the image of a mask: without what marks a mask."""
    ending = next((e for e in ENDINGS if stem.lower().endswith(e)), '')
    return stem[:len(stem) - len(ending)]
