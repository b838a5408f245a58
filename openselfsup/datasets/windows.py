"""Windows cut anywhere in large images: a few regions give many distinct tiles."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np

from ..errors import UserError, listed
from ..registry import SOURCES
from ..values import Count, NotNegative, Range
from .headers import SUFFIXES, Header, TileError
from .image_cache import ImageCache
from .sources import FileSource, ImageFolder, Source
from .tile_error import MIN_SIZE

# The real root of x^3 = x + 1, whose powers make the R2 sequence (Roberts, "The unreasonable
# effectiveness of quasirandom sequences", 2018): the golden ratio of two dimensions.
_PLASTIC = 1.32471795724474602596


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the windows of an image lie.

    Attributes:
        size: side of a window in pixels.
        stride: distance of windows in pixels, where ``per_image`` is None.
        per_image: windows of an image, fewer where it has fewer places.
    """

    size: int
    stride: int
    per_image: int | None = None

    def count(self, image: Header) -> int:
        """Return how many windows an image has, whose sides are no shorter than theirs."""
        rows, columns = self._places(image)
        if self.per_image is not None:
            return min(self.per_image, rows * columns)
        return _steps(rows, self.stride) * _steps(columns, self.stride)

    def place(self, image: Header, name: str, number: int) -> tuple[int, int]:
        """Return top and left of window ``number`` of an image of that name, in pixels."""
        rows, columns = self._places(image)
        if self.per_image is not None and self.per_image < rows * columns:
            y, x = spread(name, number)
            return int(y * rows), int(x * columns)
        stride = self.stride if self.per_image is None else 1
        row, column = divmod(number, _steps(columns, stride))
        return min(row * stride, rows - 1), min(column * stride, columns - 1)

    def _places(self, image: Header) -> tuple[int, int]:
        """Return the numbers of rows and columns at which a window can begin."""
        return image.height - self.size + 1, image.width - self.size + 1


def _steps(places: int, stride: int) -> int:
    """Return how many windows lie side by side: every ``stride`` places, and at the last one."""
    return -(-(places - 1) // stride) + 1


@SOURCES.register_module()
class Windows(Source):
    """Square windows of large images, as tiles.

    Which windows there are depends on the names and sizes of the images and on the arguments
    alone. Those of one image follow one another. Decoded images are kept, so that most windows
    cost a copy.

    Args:
        root: a folder of images, searched in depth, an image file, or a list of both.
        size: side of a window in pixels. An image of exactly this size is one window.
        stride: all windows at this distance in pixels, row by row; the last row and column lie
            flush with the edge. ``size`` by default: side by side.
        per_image: in place of ``stride``, so many windows of each image, spread evenly over it
            (the R2 sequence, begun at a place that the file's name tells). An image with no more
            places than that gives each of them once.
        labels: take the class folders as labels, as :class:`.ImageFolder` does.
        cache_mb: megabytes of decoded images that each process keeps (each worker of the loader
            is one); the image used last is kept in any case.

    Attributes:
        images: the images.
        layout: where their windows lie.
        counts: windows of each image, int64 (images,).

    Raises:
        UserError: images that cannot be used or are smaller than a window (all are reported
            together), no image at all, both ``stride`` and ``per_image``, or labels that there
            are not.
    """

    def __init__(self, root: str | Sequence[str],
                 size: Annotated[int, Range(MIN_SIZE)] = 224, per_image: Count | None = None,
                 stride: Count | None = None, labels: bool = False,
                 cache_mb: NotNegative = 256):
        self.images = _images(root, labels)
        self.size, self.layout = size, Layout(size, stride or size, per_image)
        if per_image is not None and stride is not None:
            raise UserError(f'stride={stride} and per_image={per_image} are both given',
                            where=self.images.name, expected='one of them')
        self.passed_over = self.images.passed_over
        self.tile_size = (size, size)
        self._headers = self.images.check()
        self._refuse_small()
        self.counts = np.array([self.layout.count(header) for header in self._headers], np.int64)
        self._ends = np.cumsum(self.counts)
        if labels:
            self.labels = np.repeat(self.images.require_labels(), self.counts)
            self.classes = self.images.require_classes()
        self._cache = ImageCache(int(cache_mb * 1e6))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> np.ndarray:
        number, top, left = self._window(index)
        header = self._headers[number]
        image = self._cache.get(self.images.path(number), 3 * header.height * header.width)
        if isinstance(image, TileError):
            raise image.at(self.path(index))
        if image.shape[:2] != (header.height, header.width):
            raise TileError(f'the image has {image.shape[1]} x {image.shape[0]} px now, it had '
                            f'{header.width} x {header.height} before', where=self.path(index))
        return image[top:top + self.size, left:left + self.size].copy()

    def path(self, index: int) -> str:
        """Return file and window, ``FILE#xywh=LEFT,TOP,WIDTH,HEIGHT`` (W3C Media Fragments)."""
        number, top, left = self._window(index)
        return f'{self.images.path(number)}#xywh={left},{top},{self.size},{self.size}'

    def stamp(self, index: int) -> Sequence[int] | None:
        """Return size and time of change of the window's image."""
        return self.images.stamp(self._window(index)[0])

    def check(self) -> list[Header]:
        """Return the header of every window; those of the images were checked at the start."""
        headers = [Header(header.format, self.size, self.size) for header in self._headers]
        return [header for header, count in zip(headers, self.counts) for _ in range(count)]

    def _refuse_small(self) -> None:
        small = [f'{self.images.path(i)}: {header.width} x {header.height} px'
                 for i, header in enumerate(self._headers)
                 if min(header.width, header.height) < self.size]
        if small:
            fits = min(min(header.width, header.height) for header in self._headers)
            raise UserError(listed(
                f'{len(small)} of {len(self.images)} images are smaller than a window of '
                f'{self.size} x {self.size} px (size={fits} fits all)', small),
                where=self.images.name)

    def _window(self, index: int) -> tuple[int, int, int]:
        """Return image, top and left of a window; the image by its number."""
        index = range(len(self))[index]
        image = int(np.searchsorted(self._ends, index, 'right'))
        number = int(index - (self._ends[image] - self.counts[image]))
        name = os.path.basename(self.images.path(image))
        return image, *self.layout.place(self._headers[image], name, number)


def spread(name: str, number: int) -> tuple[float, float]:
    """Return point ``number`` of a sequence that fills the unit square evenly at any length.

    The R2 sequence of Roberts (2018), ``(shift + number / (g, g^2)) mod 1`` with g^3 = g + 1.

    Args:
        name: of the sequence; it decides on the shift.
        number: at least 0.

    Returns:
        Two numbers in [0, 1).
    """
    digest = hashlib.sha256(os.fsencode(name)).digest()
    first, second = (int.from_bytes(digest[i:i + 8], 'big') / 2 ** 64 for i in (0, 8))
    return (first + number / _PLASTIC) % 1, (second + number / _PLASTIC ** 2) % 1


def _images(root: str | Sequence[str], labels: bool) -> FileSource:
    """Return the images of folders and files, in their order."""
    roots = [str(root)] if isinstance(root, (str, Path)) else [str(each) for each in root]
    files = [path for path in roots
             if path.lower().endswith(SUFFIXES) and not os.path.isdir(path)]
    if not files:
        return ImageFolder(roots, labels=labels)
    if labels:
        raise UserError('labels=True takes the names of class folders, but this is a file',
                        where=files[0], expected='folders only, or labels=False')
    parts = [FileSource([path], None, None, path) if path in files
             else ImageFolder(path, labels=False) for path in roots]
    images = FileSource([path for part in parts for path in part.paths], None, None,
                        ', '.join(roots))
    images.passed_over = '; '.join(filter(None, (part.passed_over for part in parts)))
    return images
