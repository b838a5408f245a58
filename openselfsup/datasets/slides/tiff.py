"""Tiled TIFF slides (Aperio SVS, TIFF, BigTIFF, OME-TIFF), read native tile by native tile.

tifffile finds the levels once; after that a native tile costs two reads and one call of its codec:
libjpeg-turbo for JPEG, which also decodes at 1/2, 1/4 or 1/8 of the size for a part of the time
(shrink-on-load), imagecodecs for all others. What is kept of an open slide is a page, not a table
of its native tiles.
"""

import dataclasses
import logging
import math
import os
from xml.etree import ElementTree

import numpy as np
import simplejpeg
import tifffile

from ..pixels import ycbcr_to_rgb
from ..tiff import jpeg2000_components
from ..tiff_tags import APERIO_YCBCR
from .bounded import FILES, PIXELS, OpenFile
from .slide import Level, OtherReader, Region, Slide, SlideError, exact_downsample, square

logging.getLogger('tifffile').setLevel(logging.CRITICAL)

_JPEG = 7
# An Adobe marker that says: three colours that are RGB already. libjpeg takes them for YCbCr else.
_IS_RGB = b'\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00'
_MICROMETRES = {'m': 1e6, 'cm': 1e4, 'mm': 1e3, 'µm': 1., 'μm': 1., 'um': 1., 'nm': 1e-3}
_OTHERS = ('is_ndpi', 'is_scn', 'is_bif', 'is_philips', 'is_qpi')  # OpenSlide knows their ways


@dataclasses.dataclass(frozen=True)
class _Page:
    """Where the native tiles of a level lie: what a reader needs of a page, and no more."""

    width: int
    height: int
    tile: tuple[int, int]  # width, height
    columns: int
    offsets: tuple[int, str]  # where the table begins, and its type
    counts: tuple[int, str]
    head: bytes | None  # of every JPEG stream; None for other codecs
    page: tifffile.TiffPage | None  # for other codecs


class TiffSlide(Slide):
    """A tiled TIFF file of 8-bit RGB.

    Args:
        path: the file.

    Raises:
        SlideError: a level is damaged, or it is OME-TIFF with channels in separate pages, of which
            OpenSlide would show the first alone.
        OtherReader: it is of a form that is left to OpenSlide, or not TIFF at all.
    """

    def __init__(self, path: str):
        try:
            with tifffile.TiffFile(path) as file:
                if any(getattr(file, name, False) for name in _OTHERS):
                    raise OtherReader
                series = file.series[0]
                pages = [level.keyframe for level in series.levels]
                if file.is_ome and pages[0].samplesperpixel == 1 and 'C' in series.axes:
                    raise SlideError(
                        f"its {series.shape[series.axes.index('C')]} channels lie in separate "
                        'pages', where=path, expected='RGB in one page, as raw2ometiff --rgb '
                        'writes it of three channels')
                if len(pages) == 1 and not (file.is_svs or file.is_ome):
                    pages += [page.aspage() for page in file.pages[1:]
                              if page.aspage().is_reduced and page.aspage().is_tiled]
                self._pages = [_describe(page, number, path) for number, page in enumerate(pages)]
                mpp = _mpp_of(file, pages[0])
        except (SlideError, OtherReader, OSError):
            raise
        except Exception as error:  # of whatever a damaged file makes of tifffile
            raise OtherReader from error
        size = self._pages[0].width, self._pages[0].height
        levels: list[Level] = []
        for number, page in enumerate(self._pages):
            scale = exact_downsample(size, (page.width, page.height))
            for reduce in _reductions(page):
                levels.append(Level(math.ceil(page.width / reduce),
                                    math.ceil(page.height / reduce), scale * reduce, number,
                                    reduce, (page.tile[0] // reduce, page.tile[1] // reduce)))
        # A stored level is cheaper than a reduced one of the same size, a finer one dearer still.
        best: dict[float, Level] = {}
        for level in sorted(levels, key=lambda level: level.reduce):
            if not any(abs(level.downsample / known - 1) < 0.02 for known in best):
                best[level.downsample] = level
        super().__init__(path, mpp, [best[scale] for scale in sorted(best)])

    def pixels(self, region: Region) -> np.ndarray:
        page, reduce = self._pages[region.level.number], region.level.reduce
        wide, high = (side // reduce for side in page.tile)
        right, bottom = region.left + region.width, region.top + region.height
        out = np.empty((region.height, region.width, 3), np.uint8)
        for row in range(region.top // high, -(-bottom // high)):
            for column in range(region.left // wide, -(-right // wide)):
                tile = self._native(region.level, row * page.columns + column)
                x, y = column * wide, row * high
                x0, y0 = max(x, region.left), max(y, region.top)
                x1, y1 = min(x + wide, right), min(y + high, bottom)
                out[y0 - region.top:y1 - region.top, x0 - region.left:x1 - region.left] = \
                    tile[y0 - y:y1 - y, x0 - x:x1 - x]
        return out

    def _native(self, level: Level, index: int) -> np.ndarray:
        key = self.path, level.number, level.reduce, index
        return PIXELS.get(key, lambda: self._decode(level, index), lambda tile: tile.nbytes)

    def _decode(self, level: Level, index: int) -> np.ndarray:
        page = self._pages[level.number]
        width, height = (side // level.reduce for side in page.tile)
        data = self.stored(level.number, index)
        if not data:  # left out where there is nothing to see
            return np.full((height, width, 3), 255, np.uint8)
        try:
            if page.head is not None:
                tile = simplejpeg.decode_jpeg(page.head + data[2:], 'RGB', min_height=height,
                                              min_width=width)
            else:
                assert page.page is not None
                tile = np.asarray(page.page.decode(data, index)[0]).reshape(height, width, 3)
                # Where Cb lies wider than brightness, the codec has made RGB of it already.
                if page.page.compression == APERIO_YCBCR and \
                        jpeg2000_components(data, 3)[4:5] == b'\1':
                    tile = ycbcr_to_rgb(tile)
        except Exception as error:  # each codec has exceptions of its own
            raise SlideError(f'tile {index} of level {level.number} is damaged ({error})',
                             where=self.path) from None
        if tile.shape != (height, width, 3):
            raise SlideError(f'tile {index} of level {level.number} is of {tile.shape}, not '
                             f'{(height, width, 3)}', where=self.path)
        return tile

    def stored(self, number: int, index: int) -> bytes:
        """Return the bytes of native tile ``index`` of stored level ``number``, b'' for none."""
        page, file = self._pages[number], FILES.get(self.path, lambda: _open(self.path))
        start, count = (int(np.frombuffer(file.read(at + index * np.dtype(kind).itemsize,
                                                    np.dtype(kind).itemsize), kind)[0])
                        for at, kind in (page.offsets, page.counts))
        return file.read(start, count) if count else b''


def _open(path: str) -> OpenFile:
    try:
        return OpenFile(path)
    except OSError as error:
        raise SlideError(error.strerror or str(error), where=path) from None


def _describe(page: tifffile.TiffPage, number: int, path: str) -> _Page:
    if not (page.is_tiled and page.samplesperpixel == 3 and page.dtype == np.uint8
            and page.planarconfig == 1 and page.photometric in (2, 6)
            or page.is_tiled and page.compression in (APERIO_YCBCR, 33005)
            and page.dtype == np.uint8 and page.samplesperpixel == 3):
        raise OtherReader
    tables = []
    for name in ('TileOffsets', 'TileByteCounts'):
        tag = page.tags[name]
        kind = page.parent.byteorder + {3: 'u2', 4: 'u4', 16: 'u8'}[int(tag.dtype)]
        tables.append((int(tag.valueoffset), kind))
    columns, rows = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    starts, counts = (np.asarray(table, np.int64) for table in (page.dataoffsets,
                                                               page.databytecounts))
    if min(len(starts), len(counts)) < columns * rows:
        raise SlideError(f'level {number} is damaged: {columns * rows} native tiles are needed, '
                         f'its tables tell of {min(len(starts), len(counts))}', where=path)
    beyond = starts + counts > os.path.getsize(path)
    if beyond.any():
        raise SlideError(f'level {number} is damaged: {int(beyond.sum())} of {len(starts)} native '
                         'tiles lie beyond the end of the file', where=path,
                         expected='the whole file, copied anew')
    head = None
    if page.compression == _JPEG:
        tables_of = page.jpegtables or b'\xff\xd8\xff\xd9'
        head = (tables_of[:2] + (_IS_RGB if page.photometric == 2 else b'')
                + tables_of[2:tables_of.rindex(b'\xff\xd9')])
    return _Page(page.imagewidth, page.imagelength, (page.tilewidth, page.tilelength), columns,
                 tables[0], tables[1], head, None if head else page)


def _reductions(page: _Page) -> list[int]:
    """Return at which parts of its size a level can be decoded with all edges on whole pixels."""
    return [reduce for reduce in ((1, 2, 4, 8) if page.head is not None else (1,))
            if all(side % (2 * reduce) == 0 for side in page.tile)
            and min(page.width, page.height) >= reduce]


def _mpp_of(file: tifffile.TiffFile, page: tifffile.TiffPage) -> float | None:
    """Return micrometres per pixel: from Aperio's words, OME-XML, or the tags of TIFF."""
    if file.is_svs:
        for part in page.description.split('|'):
            name, _, value = part.partition('=')
            if name.strip() == 'MPP' and _number(value):
                return _number(value)
        return None
    if file.is_ome and file.ome_metadata:
        for element in ElementTree.fromstring(file.ome_metadata).iter():
            if element.tag.endswith('}Pixels') and element.get('PhysicalSizeX'):
                return square(*(_physical_size(element, axis) for axis in 'XY'))
        return None
    unit = {2: 25400., 3: 10000.}.get(int(page.tags.valueof('ResolutionUnit', 1)), 0.)
    tags = (page.tags.valueof(f'{axis}Resolution', (0, 1)) for axis in 'XY')
    mpp = square(*(unit * whole / parts if parts else None for parts, whole in tags))
    return mpp if mpp and mpp < 20 else None  # 72 or 300 dpi are what programs write unasked


def _physical_size(pixels: ElementTree.Element, axis: str) -> float | None:
    size, unit = pixels.get(f'PhysicalSize{axis}'), pixels.get(f'PhysicalSize{axis}Unit', 'µm')
    try:
        return float(size) * _MICROMETRES[unit] if size else None
    except (ValueError, KeyError):
        return None


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(',', '.'))
    except ValueError:
        return None
    return value if 0 < value < 1000 else None
