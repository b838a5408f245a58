"""What a tile's first bytes say: format, size and orientation, without decoding a pixel.

Checking the header of 100,000 files takes seconds, so it is done before training starts;
decoding them all takes minutes and is left to ``openselfsup verify --full``. The decoder
starts with the same check, so what is refused here by name is refused there in the same words.
"""

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path

from . import tiff_tags as t
from .tile_error import TileError, check_size

__all__ = ['SUFFIXES', 'Header', 'TileError', 'check_size', 'parse', 'read_header']

SUFFIXES = ('.tif', '.tiff', '.png', '.jpg', '.jpeg', '.bmp')
Reader = Callable[[int, int], bytes]  # (offset, length) -> at most that many bytes

_END_OF_JPEG = b'\xff\xd9'
_WHOLE = {1: 'B', 3: 'H', 4: 'I'}  # types of whole numbers in EXIF
_PNG = b'\x89PNG\r\n\x1a\n'
_BMP_COMPRESSIONS = {1: 'run lengths', 2: 'run lengths', 4: 'JPEG', 5: 'PNG'}
_RATIOS = ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1))  # of brightness to colours
_JPEG_KINDS = {0xc3: 'lossless', 0xc5: 'hierarchical', 0xc6: 'hierarchical', 0xc7: 'hierarchical',
               0xc9: 'arithmetic-coded', 0xca: 'arithmetic-coded', 0xcb: 'lossless',
               0xcd: 'hierarchical', 0xce: 'hierarchical', 0xcf: 'hierarchical'}


@dataclasses.dataclass(frozen=True)
class Header:
    """What a tile's header says.

    Attributes:
        format: 'TIFF', 'PNG', 'JPEG' or 'BMP'.
        height: in pixels, of the upright tile as ``read_tile`` returns it.
        width: in pixels, likewise.
        orientation: how the stored pixels have to be turned and mirrored to be upright, 1 to 8
            as in TIFF and EXIF (1: not at all).
    """

    format: str
    height: int
    width: int
    orientation: int = dataclasses.field(default=1, compare=False)


def read_header(path: str | Path) -> Header:
    """Read format and size of a tile.

    Raises:
        TileError: no such file, not one of our formats or a form of it that is not read (the
            tag is named), a damaged header, a file that is cut off, a side below 32 px, or
            more than 2 ** 28 px.
    """
    try:
        with open(path, 'rb') as file:
            length = file.seek(0, 2)

            def read(offset: int, count: int) -> bytes:
                if offset >= length:
                    return b''
                file.seek(offset)
                return file.read(count)

            return parse(read, length)[0]
    except OSError as error:
        raise TileError(error.strerror or str(error), where=str(path)) from None
    except TileError as error:
        raise error.at(path) from None


def parse(read: Reader, length: int) -> tuple[Header, t.Tags | None]:
    """Read and check the header of a tile of ``length`` bytes; of a TIFF return its tags as well.

    Raises:
        TileError: as :func:`read_header`, without the path.
    """
    try:
        magic = read(0, 8)
        tags = None
        if magic[:4] in t.TIFF_MAGIC:
            tags = t.read_tiff_tags(read)
            t.check_tiff(tags, length)
            header = _upright('TIFF', tags[t.LENGTH][0], tags[t.WIDTH][0],
                              t.first(tags, t.ORIENTATION, 1))
        elif magic == _PNG:
            header = _parse_png(read)
        elif magic[:3] == b'\xff\xd8\xff':
            header = _parse_jpeg(read, length)
        elif magic[:2] == b'BM':
            header = _parse_bmp(read, length)
        else:
            raise TileError('neither TIFF, PNG, JPEG nor BMP' if length else 'the file is empty')
    except (struct.error, KeyError, IndexError):
        raise TileError('its header is damaged or cut off') from None
    check_size(header.height, header.width)
    return header, tags


def _upright(kind: str, height: int, width: int, orientation: int) -> Header:
    """Return the header of an image of stored height and width; 0 and unknown ones mean 1."""
    if orientation not in range(1, 9):
        orientation = 1
    if orientation >= 5:  # rows and columns change places
        height, width = width, height
    return Header(kind, height, width, orientation)


def _exif_orientation(block: bytes) -> int:
    """Return the orientation of an EXIF block, 1 where it has none.

    A directory that promises more entries than there are, which cameras and editors write, is
    read as far as it goes, as viewers do.
    """
    order = {b'II': '<', b'MM': '>'}.get(block[:2])
    if order is None or len(block) < 10:
        return 1
    place, = struct.unpack_from(order + 'I', block, 4)
    if place + 2 > len(block):
        return 1
    count, = struct.unpack_from(order + 'H', block, place)
    orientation = 1
    for start in range(place + 2, min(place + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, number = struct.unpack_from(order + 'HHI', block, start)
        if (tag, number) == (t.ORIENTATION, 1) and kind in _WHOLE:
            orientation, = struct.unpack_from(order + _WHOLE[kind], block, start + 8)
    return orientation


def _parse_png(read: Reader) -> Header:
    """Walk over all chunks: the orientation may stand anywhere, and the last one must be there."""
    width, height = struct.unpack('>II', read(16, 8))
    orientation, place = 1, len(_PNG)
    while True:
        head = read(place, 8)
        if len(head) < 8:
            raise TileError('the file is damaged or cut off: its end is missing')
        count, kind = struct.unpack('>I4s', head)
        if kind == b'IEND':
            return _upright('PNG', height, width, orientation)
        if kind == b'eXIf':
            orientation = _exif_orientation(read(place + 8, count))
        place += 12 + count


def _parse_jpeg(read: Reader, length: int) -> Header:
    if _END_OF_JPEG not in read(max(length - 4096, 0), 4096) and (
            _END_OF_JPEG not in read(0, length)):
        raise TileError('the file is damaged or cut off: its end is missing')
    place, orientation = 2, 1
    while True:
        start, marker, count = struct.unpack('>BBH', read(place, 4))
        if start != 0xff:
            raise TileError('its header is damaged')
        if marker == 0xff:  # a fill byte before the marker
            place += 1
            continue
        if 0xc0 <= marker <= 0xcf and marker not in (0xc4, 0xc8, 0xcc):  # start of frame
            bits, height, width, samples = struct.unpack('>BHHB', read(place + 4, 6))
            kind = _JPEG_KINDS.get(marker) or _unread_jpeg(bits, read(place + 10, 3 * samples))
            if kind:
                raise TileError(f'a JPEG file that is {kind}', expected='baseline or progressive '
                                'JPEG of 8 bits a sample, or PNG')
            return _upright('JPEG', height, width, orientation)
        if marker == 0xe1 and (
                block := read(place + 4, max(count - 2, 0))).startswith(b'Exif\0\0'):
            orientation = _exif_orientation(block[6:])
        place += 2 + count


def _unread_jpeg(bits: int, components: bytes) -> str | None:
    """Return what is unusual in a frame of (identity, sampling, table) a component, or None."""
    sampling = [(value >> 4, value & 15) for value in components[1::3]]
    if bits != 8:
        return f'of {bits} bits a sample'
    if len(sampling) not in (1, 3, 4):
        return f'of {len(sampling)} channels'
    if len(sampling) == 1:
        return None
    (across, down), chroma = sampling[0], sampling[1]
    whole = all(chroma) and across % chroma[0] == down % chroma[1] == 0
    ratio = (across // chroma[0], down // chroma[1]) if whole else None
    if len(sampling) == 4 and len(set(sampling)) > 1 or (
            len(sampling) == 3 and (ratio not in _RATIOS or sampling[2] != chroma)):
        return 'subsampled ' + ', '.join(f'{h} x {v}' for h, v in sampling)
    return None


def _parse_bmp(read: Reader, length: int) -> Header:
    start, size = struct.unpack('<II', read(10, 8))
    if size == 12:  # the header of OS/2
        width, height, _, bits = struct.unpack('<HHHH', read(18, 8))
        compression = 0
    elif 40 <= size <= 256:
        width, height, _, bits, compression = struct.unpack('<iiHHI', read(18, 16))
    else:
        raise TileError('its header is damaged')
    height = abs(height)  # negative: the top row comes first
    if start < 14 + size:
        raise TileError('its header is damaged: its pixels would begin in it')
    if compression not in (0, 3, 6) or bits not in (1, 4, 8, 16, 24, 32):
        kind = _BMP_COMPRESSIONS.get(compression, f'kind {compression}')
        raise TileError(f'a BMP file of {bits} bits a pixel with compression {compression} '
                        f'({kind})', expected='an uncompressed BMP file, or PNG')
    if start + (width * bits + 31) // 32 * 4 * height > length:
        raise TileError('the file is cut off: its pixels lie beyond its end')
    return Header('BMP', height, width)
