"""A slide: its levels, and regions of it at any magnification with exact geometry.

Coordinates of a slide are pixels of its base level, x right and y down; mpp are micrometres per
pixel. A region is a whole number of pixels of one level, so that where a tile lies is known exactly
whatever its magnification.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from ..sources import stamp_of
from ..tile_error import TileError

_ALIKE = 0.02  # by which a level's mpp may miss the wanted one and still be copied, not resized
_STRIP = 2 ** 25  # pixels of a level that are held at once, 96 MiB, where the whole of it is read


class SlideError(TileError):
    """A slide that cannot be used, or a part of one: one sentence."""


class OtherReader(Exception):
    """A file of a form that a reader leaves to the next one."""


@dataclasses.dataclass(frozen=True)
class Level:
    """One level of a slide's pyramid.

    Attributes:
        width, height: in its own pixels.
        downsample: side of its pixels in pixels of the base level.
        number: what the reader calls it.
        reduce: 1, or 2, 4 or 8 for a level that is decoded at this part of its size.
        native: (width, height) of the native tiles that the file is made of, None if unknown.
    """

    width: int
    height: int
    downsample: float
    number: int
    reduce: int = 1
    native: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Region:
    """A rectangle of whole pixels of a level.

    Attributes:
        level: the level.
        left, top, width, height: in its pixels.
    """

    level: Level
    left: int
    top: int
    width: int
    height: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) in pixels of the base level."""
        scale = self.level.downsample
        return (self.left * scale, self.top * scale, self.width * scale, self.height * scale)


class Slide(ABC):
    """A whole slide; readers override :meth:`pixels`.

    Args:
        path: the file.
        mpp: micrometres per pixel of the base level; None where the file does not tell. What is
            no number above 0 tells nothing.
        levels: the levels, the base first, each coarser than the one before.

    Attributes:
        tells_mpp: whether mpp is known.
    """

    def __init__(self, path: str, mpp: float | None, levels: Sequence[Level]):
        self.path, self.levels = path, list(levels)
        self.width, self.height = levels[0].width, levels[0].height
        self.mpp = mpp

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of the base level.

        Raises:
            SlideError: the file does not tell, and nobody has set it.
        """
        if self._mpp is None:
            raise SlideError('this slide does not tell its micrometres per pixel, or other ones '
                             'across than down', where=self.path, expected="a value in the column "
                             "'mpp' of the source's table (prepare slides: --source-mpp)")
        return self._mpp

    @mpp.setter
    def mpp(self, mpp: float | None) -> None:
        self._mpp = mpp if mpp is not None and 0 < mpp < math.inf else None

    @property
    def tells_mpp(self) -> bool:
        return self._mpp is not None

    @abstractmethod
    def pixels(self, region: Region) -> np.ndarray:
        """Return the pixels of a region that lies within its level, uint8 (height, width, 3).

        Called from several threads and forked processes at once.

        Raises:
            SlideError: they are damaged.
        """

    def name(self, region: Region) -> str:
        """Return file and place, ``FILE#xywh=LEFT,TOP,WIDTH,HEIGHT`` in pixels of the base."""
        return f'{self.path}#xywh=' + ','.join(f'{value:g}' for value in region.box)

    @property
    def stamp(self) -> tuple[int, int] | None:
        """Size in bytes and time of change of the file, None if it is not there."""
        return stamp_of(self.path)

    def level_for(self, mpp: float) -> Level:
        """Return the coarsest level that is no coarser than ``mpp``; the base if none is."""
        limit = mpp / self.mpp * (1 + _ALIKE)
        return max((level for level in self.levels if level.downsample <= limit),
                   key=lambda level: level.downsample, default=self.levels[0])

    def side(self, mpp: float, size: int) -> int:
        """Return the side of a tile of ``size`` pixels of ``mpp`` in pixels of its level."""
        scale = mpp / (self.mpp * self.level_for(mpp).downsample)
        return size if abs(scale - 1) <= _ALIKE else round(size * scale)

    def region(self, x: float, y: float, mpp: float, size: int) -> Region:
        """Return the square region around a point that a tile shows.

        Its side is ``size`` pixels of ``mpp`` in whole pixels of the level, of which a tile of 224
        has at least 219: its magnification is off by 2 % at most, and its place is exact. It is
        moved to lie within the slide.

        Args:
            x, y: the middle, in pixels of the base level.
            mpp: of the tile.
            size: side of the tile in pixels.

        Raises:
            SlideError: the slide is smaller, or its base level is coarser than ``mpp``.
        """
        if mpp * (1 + _ALIKE) < self.mpp:
            raise SlideError(f'its finest level has {self.mpp:.3g} micrometres per pixel, coarser '
                             f'than mpp={mpp:.3g}', where=self.path,
                             expected=f'mpp={self.mpp:.3g} or more')
        level = self.level_for(mpp)
        side = self.side(mpp, size)
        if side > min(level.width, level.height):
            width, height = (n * self.mpp / mpp for n in (self.width, self.height))
            raise SlideError(f'at mpp={mpp:.3g} it has {width:.0f} x {height:.0f} px',
                             where=self.path, expected=f'at least {size} x {size} px')
        left, top = (min(max(round(middle / level.downsample - side / 2), 0), room - side)
                     for middle, room in ((x, level.width), (y, level.height)))
        return Region(level, left, top, side, side)

    def read(self, region: Region, size: int) -> np.ndarray:
        """Return a region in a square of ``size`` pixels, uint8 (size, size, 3)."""
        pixels = self.pixels(region)
        if pixels.shape[:2] == (size, size):
            return pixels
        reduced = len(pixels) > size
        return cv2.resize(pixels, (size, size),
                          interpolation=cv2.INTER_AREA if reduced else cv2.INTER_CUBIC)

    def overview(self, mpp: float) -> np.ndarray:
        """Return the whole slide, uint8 (H, W, 3), with pixels of ``mpp`` micrometres.

        It is read in strips, so that a fine level needs no memory of its own size.
        """
        return np.concatenate(list(self.strips(mpp)))

    def strips(self, mpp: float, multiple: int = 1) -> Iterator[np.ndarray]:
        """Yield the overview from top to bottom in parts, uint8 (h, W, 3).

        Args:
            mpp: of its pixels.
            multiple: the height of each part but the last is one of this.
        """
        level = self.level_for(mpp)
        scale = mpp / (self.mpp * level.downsample)
        width, height = (max(round(n / scale), 1) for n in (level.width, level.height))
        rows = max(math.floor(_STRIP / level.width / scale) // multiple, 1) * multiple
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            top, bottom = (round(row * level.height / height) for row in (start, stop))
            strip = self.pixels(Region(level, 0, top, level.width, bottom - top))
            yield cv2.resize(strip, (width, stop - start), interpolation=cv2.INTER_AREA)


def few_natives(corner: float, length: int, native: int) -> int:
    """Move a stretch of pixels, by at most half a native tile, to where it needs the fewest.

    Every place that needs the fewest is reached, and alike. Where nearly none does, such as that of
    a stretch of exactly one native tile, it stays where it is.

    Args:
        corner: where the stretch begins.
        length: its length.
        native: length of a native tile, the first of which begins at 0.

    Returns:
        Where it begins then.
    """
    room = -length % native
    if 16 * room < length:
        return round(corner)
    number, inside = divmod(corner + (native - room) / 2, native)
    return round(number * native + inside * room / native)


def square(across: float | None, down: float | None) -> float | None:
    """Return the micrometres per pixel of square pixels, None if unknown or if they are none.

    Args:
        across, down: micrometres per pixel; one may be unknown.
    """
    known = [mpp for mpp in (across, down) if mpp]
    if not known or max(known) > min(known) * (1 + _ALIKE):
        return None
    return sum(known) / len(known)


def exact_downsample(base: tuple[int, int], size: tuple[int, int]) -> float:
    """Return by how much a level is coarser than the base.

    It is a whole number where the sizes are those of that number rounded up or down, which says
    more than their ratio.

    Args:
        base, size: (width, height) of the base and of the level.
    """
    ratio = (base[0] / size[0] + base[1] / size[1]) / 2
    whole = round(ratio)
    return float(whole) if all(abs(b / whole - s) < 1 for b, s in zip(base, size)) else ratio
