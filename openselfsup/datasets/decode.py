"""One file to one RGB tile.

Each format has one decoder, which refuses what is damaged: TIFF see ``tiff.py``, JPEG
libjpeg-turbo by simplejpeg (which, unlike others, tells when data are missing), PNG libpng by
imagecodecs, BMP Pillow. The first two release the interpreter lock, so that threads decode in
parallel.
"""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image

from .headers import parse
from .pixels import as_rgb, cmyk_to_rgb, over_white, to_8_bits, upright
from .tiff import raw_rgb, read_tiff
from .tile_error import TileError, check_size


def read_tile(path: str | Path) -> np.ndarray:
    """Read a TIFF, PNG, JPEG or BMP file as RGB.

    Grey and palette images become RGB, of more than 8 bits the upper 8 are kept (of those that
    are used: 12-bit samples lose 4), transparent pixels are laid over white (the colour of
    empty glass), the orientation that TIFF or EXIF tells is applied, of several pages the first
    is read. Colour profiles are not applied.

    Returns:
        uint8 array of shape (H, W, 3), writable and contiguous.

    Raises:
        TileError: the file is missing, damaged, no image of a known format, of a form that is
            not read (the tag is named), or smaller than 32 x 32 px.
    """
    return decode_tile(read_bytes(path), path)


def read_bytes(path: str | Path) -> np.ndarray:
    """Return the bytes of a tile's file as a writable uint8 array of shape (bytes,).

    Raises:
        TileError: it cannot be read.
    """
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise TileError(error.strerror or str(error), where=str(path)) from None


def decode_tile(data: np.ndarray, path: str | Path) -> np.ndarray:
    """Decode the content of a file as :func:`read_tile` does.

    Args:
        data: uint8 array of shape (bytes,), writable: an uncompressed tile is a view of it.
        path: of the tile, for messages.
    """
    tile = raw_rgb(data)
    if tile is not None:
        height, width, _ = tile.shape
        check_size(height, width, path)
        return tile
    memory = data.data
    try:
        header, tags = parse(lambda start, count: bytes(memory[start:start + count]), len(data))
        if tags is not None:
            tile = read_tiff(data, tags, header.orientation, path)
        else:
            tile = as_rgb(upright(_DECODERS[header.format](memory, path), header.orientation))
    except TileError as error:
        raise error.at(path) from None
    if tile.shape != (header.height, header.width, 3):
        raise TileError(f'its header promises {header.width} x {header.height} px, it holds '
                        f'{tile.shape[1]} x {tile.shape[0]}', where=str(path))
    return tile


def _jpeg(data: memoryview, path: str | Path) -> np.ndarray:
    try:
        if simplejpeg.decode_jpeg_header(data)[2] in ('CMYK', 'YCCK'):
            return cmyk_to_rgb(simplejpeg.decode_jpeg(data, 'CMYK'))  # stored inverted by custom
        return simplejpeg.decode_jpeg(data, 'RGB')
    except ValueError as error:
        raise TileError(f'cannot be decoded: the file is damaged or cut off ({error})') from None


def _png(data: memoryview, path: str | Path) -> np.ndarray:
    check_png(data)
    try:
        pixels = imagecodecs.png_decode(data)  # type: ignore[arg-type]  # takes any buffer
    except (imagecodecs.PngError, ValueError) as error:
        raise TileError(f'cannot be decoded: the file is damaged ({error})') from None
    pixels = to_8_bits(pixels, 8 * pixels.dtype.itemsize, path)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels in (2, 4):
        colour = pixels[..., 0] if channels == 2 else pixels[..., :3]
        return over_white(colour, pixels[..., -1])
    return pixels


def check_png(data: bytes | memoryview) -> None:
    """Raise TileError where a checksum of a PNG file is wrong or its end is missing."""
    place, kind = 8, b''
    while kind != b'IEND':
        count, kind = (struct.unpack_from('>I4s', data, place) if place + 12 <= len(data)
                       else (len(data), b''))
        if place + 12 + count > len(data):
            raise TileError('the file is damaged or cut off: its end is missing')
        checksum = data[place + 8 + count:place + 12 + count]
        if int.from_bytes(checksum, 'big') != zlib.crc32(data[place + 4:place + 8 + count]):
            raise TileError('cannot be decoded: the file is damaged, the checksum of its '
                            f'{str(kind)[1:]} is wrong')
        place += 12 + count


def _bmp(data: memoryview, path: str | Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=['BMP']) as image:
            if image.mode == 'RGBA':
                pixels = np.asarray(image)
                return over_white(pixels[..., :3], pixels[..., 3])
            return np.asarray(image.convert('RGB'))
    # Pillow documents OSError; on damaged files its decoders raise all of these.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError,
            struct.error, Image.DecompressionBombError) as error:
        raise TileError(f'cannot be decoded: the file is damaged ({error})') from None


_DECODERS = {'JPEG': _jpeg, 'PNG': _png, 'BMP': _bmp}
