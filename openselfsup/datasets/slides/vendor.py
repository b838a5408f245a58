"""Slides of all other formats, read by OpenSlide."""

import math
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from ..pixels import over_white
from .bounded import FILES
from .slide import Level, Region, Slide, SlideError, exact_downsample, square

_HUGE = 2 ** 28  # pixels of a native tile: 1 GiB


def require_openslide(path: str) -> ModuleType:
    """Import openslide.

    Args:
        path: of the slide that needs it, for messages.

    Raises:
        SlideError: it is not installed.
    """
    try:
        import openslide
    except (ImportError, OSError):
        raise SlideError('slides of this format are read by OpenSlide, which is not installed',
                         where=path, expected='pip install openselfsup-pathology[slides]') from None
    return openslide


class OpenSlideSlide(Slide):
    """A slide of any format that OpenSlide reads.

    Args:
        path: the file; of MIRAX its .mrxs, of DICOM any file of the series.

    Raises:
        SlideError: OpenSlide is not installed, does not know the file, or it is damaged.
    """

    def __init__(self, path: str):
        openslide = require_openslide(path)
        try:
            with openslide.OpenSlide(path) as slide:
                sizes, properties = slide.level_dimensions, dict(slide.properties)
        except openslide.OpenSlideUnsupportedFormatError:
            raise SlideError('this is no slide that can be read, whatever its name says',
                             where=path, expected='tiled TIFF, or a format of OpenSlide') from None
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(f'this slide is damaged ({error})', where=path) from None
        _refuse_huge_tiles(sizes, properties, path)
        levels = [Level(width, height, exact_downsample(sizes[0], (width, height)), number,
                        native=_native(properties, number))
                  for number, (width, height) in enumerate(sizes)]
        super().__init__(path, _mpp(properties), levels)

    def pixels(self, region: Region) -> np.ndarray:
        openslide = require_openslide(self.path)
        scale = region.level.downsample
        try:
            slide = FILES.get(('openslide', self.path), lambda: openslide.OpenSlide(self.path))
            found = np.asarray(slide.read_region(
                (round(region.left * scale), round(region.top * scale)), region.level.number,
                (region.width, region.height)))
        except (openslide.OpenSlideError, OSError) as error:
            FILES.forget(('openslide', self.path))  # after an error OpenSlide reads no more of it
            raise SlideError(f'level {region.level.number} is damaged ({error})',
                             where=self.path) from None
        colour, alpha = found[..., :3], found[..., 3]
        if alpha.min() == 255:
            return np.ascontiguousarray(colour)
        return over_white(colour, alpha)


def _refuse_huge_tiles(sizes: Sequence[tuple[int, int]], properties: Mapping[str, str],
                      path: str) -> None:
    """Refuse native tiles for which OpenSlide would want more memory than there is.

    It ends the whole process then, and a damaged TIFF file may tell of them.

    Args:
        sizes: (width, height) of the levels.
        properties: of OpenSlide.
        path: of the slide, for messages.

    Raises:
        SlideError: those of a level are far larger than the level.
    """
    for number, size in enumerate(sizes):
        native = _native(properties, number)
        if native and math.prod(native) > max(_HUGE, 2 * math.prod(size)):
            raise SlideError(f'level {number} is damaged: it has {size[0]} x {size[1]} px, its '
                             f'native tiles {native[0]} x {native[1]} px', where=path)


def _native(properties: Mapping[str, str], level: int) -> tuple[int, int] | None:
    width, height = (int(properties.get(f'openslide.level[{level}].tile-{side}', 0))
                     for side in ('width', 'height'))
    return (width, height) if width and height else None


def _mpp(properties: dict[str, str]) -> float | None:
    mpp = square(*(float(properties.get(f'openslide.mpp-{side}', 0)) for side in 'xy'))
    return mpp if mpp and mpp < 20 else None
