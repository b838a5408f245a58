"""What a tile's first bytes say: format and size, without decoding a pixel.

Checking the header of 100,000 files takes seconds, so it is done before training starts;
decoding them all takes minutes and is left to ``tools/verify_data.py --full``.
"""

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError

MIN_SIZE = 32
SUFFIXES = ('.tif', '.tiff', '.png', '.jpg', '.jpeg', '.bmp')
TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two: BigTIFF

# TIFF tags (TIFF 6.0, section 8) that a tile's header or raw pixels need.
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274
STRIP_OFFSETS, SAMPLES, STRIP_BYTES, PLANAR = 273, 277, 279, 284
TILE_OFFSETS, TILE_BYTES = 324, 325
_TAGS = frozenset((WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, STRIP_OFFSETS,
                   SAMPLES, STRIP_BYTES, PLANAR, TILE_OFFSETS, TILE_BYTES))
_TYPES = {3: ('H', 2), 4: ('I', 4), 16: ('Q', 8)}

Reader = Callable[[int, int], bytes]  # (offset, length) -> at most that many bytes


class TileError(UserError):
    """One tile that cannot be used: missing, damaged, of another format, too small."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Format ('TIFF', 'PNG', 'JPEG', 'BMP') and size of a tile in pixels."""

    format: str
    height: int
    width: int


def read_header(path: str | Path) -> Header:
    """Read format and size of a tile.

    Raises:
        TileError: no such file, not one of our formats, a damaged header, pixel data that
            lie beyond the end of the file (TIFF), or a side below 32 px.
    """
    try:
        with open(path, 'rb') as file:
            length = file.seek(0, 2)

            def read(offset: int, count: int) -> bytes:
                if offset >= length:
                    return b''
                file.seek(offset)
                return file.read(count)

            header = _parse(read, length)
    except OSError as error:
        raise TileError(error.strerror or str(error), where=str(path)) from None
    except (struct.error, KeyError):
        raise TileError('its header is damaged or cut off', where=str(path)) from None
    except ValueError as error:
        raise TileError(str(error), where=str(path)) from None
    check_size(header.height, header.width, path)
    return header


def check_size(height: int, width: int, path: str | Path) -> None:
    """Raise TileError if a tile is smaller than any view could use."""
    if min(height, width) < MIN_SIZE:
        raise TileError(f'the tile is only {width} x {height} px', where=str(path),
                        expected=f'at least {MIN_SIZE} x {MIN_SIZE} px')


def _parse(read: Reader, length: int) -> Header:
    magic = read(0, 4)
    if magic in TIFF_MAGIC:
        tags = read_tiff_tags(read)
        starts = tags.get(STRIP_OFFSETS) or tags[TILE_OFFSETS]
        counts = tags.get(STRIP_BYTES) or tags[TILE_BYTES]
        if max((start + count for start, count in zip(starts, counts)), default=0) > length:
            raise ValueError('the file is cut off: its pixels lie beyond its end')
        return Header('TIFF', tags[LENGTH][0], tags[WIDTH][0])
    if magic == b'\x89PNG':
        width, height = struct.unpack('>II', read(16, 8))
        return Header('PNG', height, width)
    if magic[:3] == b'\xff\xd8\xff':
        return _parse_jpeg(read)
    if magic[:2] == b'BM':
        width, height = struct.unpack('<ii', read(18, 8))  # a negative height: top row first
        return Header('BMP', abs(height), width)
    raise ValueError('neither TIFF, PNG, JPEG nor BMP' if length else 'the file is empty')


def _parse_jpeg(read: Reader) -> Header:
    place = 2
    while True:
        start, marker, count = struct.unpack('>BBH', read(place, 4))
        if start != 0xff:
            raise ValueError('its header is damaged')
        if marker == 0xff:  # a fill byte before the marker
            place += 1
        elif 0xc0 <= marker <= 0xcf and marker not in (0xc4, 0xc8, 0xcc):  # start of frame
            height, width = struct.unpack('>HH', read(place + 5, 4))
            return Header('JPEG', height, width)
        else:
            place += 2 + count


def read_tiff_tags(read: Reader) -> dict[int, tuple[int, ...]]:
    """Read the first directory of a TIFF or BigTIFF file: our tags with all their values.

    Raises:
        struct.error, KeyError: the directory is damaged or cut off.
    """
    head = read(0, 16)
    order = {b'II': '<', b'MM': '>'}[head[:2]]
    big = struct.unpack_from(order + 'H', head, 2)[0] == 43
    word, entry = ('Q', 'HHQ8s') if big else ('I', 'HHI4s')
    inline, counter = (8, 'Q') if big else (4, 'H')
    offset, = struct.unpack_from(order + word, head, 8 if big else 4)
    count, = struct.unpack(order + counter, read(offset, struct.calcsize(order + counter)))
    if count > 1000:
        raise struct.error('no directory has so many entries')
    entries = read(offset + struct.calcsize(order + counter), count * (12 + 8 * big))
    if len(entries) < count * (12 + 8 * big):
        raise struct.error('the directory is cut off')
    tags = {}
    for tag, kind, number, value in struct.iter_unpack(order + entry, entries):
        if tag in _TAGS and kind in _TYPES:
            letter, size = _TYPES[kind]
            if number > 1_000_000:
                raise struct.error('no tile has so many strips')
            if number * size > inline:
                value = read(struct.unpack(order + word, value)[0], number * size)
            tags[tag] = struct.unpack_from(f'{order}{number}{letter}', value)
    return tags
