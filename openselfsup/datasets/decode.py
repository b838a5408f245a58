"""One file to one RGB tile.

OpenCV decodes with the interpreter lock released, so that threads decode in parallel.
Uncompressed RGB TIFF, the form of NCT-CRC-HE, needs no decoder: its pixels are a window
of the file.
"""

import struct
from pathlib import Path

import cv2
import numpy as np

from . import headers
from .headers import TIFF_MAGIC, TileError, check_size, read_tiff_tags

# OpenCV's own messages name no file; ours do.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_tile(path: str | Path) -> np.ndarray:
    """Read a TIFF, PNG, JPEG or BMP file as RGB.

    Grey and palette images become RGB, 16-bit values keep their upper 8 bits, transparent
    pixels are laid over white (the colour of empty glass), an EXIF orientation is ignored,
    of several pages the first is read.

    Returns:
        uint8 array of shape (H, W, 3), writable and contiguous.

    Raises:
        TileError: the file is missing, damaged, no image of a known format, holds other than
            8- or 16-bit integers, or is smaller than 32 x 32 px.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise TileError(error.strerror or str(error), where=str(path)) from None
    if not len(data):
        raise TileError('the file is empty', where=str(path))
    is_tiff = data[:4].tobytes() in TIFF_MAGIC
    tile = _raw_rgb(data) if is_tiff else None
    if tile is None:
        tile = _to_rgb(_decode(data, path), is_tiff, path)
    check_size(*tile.shape[:2], path)
    return tile


def _raw_rgb(data: np.ndarray) -> np.ndarray | None:
    """Return the pixels of an uncompressed 8-bit RGB TIFF in one run of strips, else None."""
    try:
        tags = read_tiff_tags(lambda offset, count: data[offset:offset + count].tobytes())
        height, width = tags[headers.LENGTH][0], tags[headers.WIDTH][0]
        starts, counts = tags[headers.STRIP_OFFSETS], tags[headers.STRIP_BYTES]
    except (struct.error, KeyError):
        return None
    plain = (tags.get(headers.BITS) == (8, 8, 8) and tags.get(headers.SAMPLES) == (3,)
             and tags.get(headers.PHOTOMETRIC) == (2,)
             and tags.get(headers.COMPRESSION, (1,)) == (1,)
             and tags.get(headers.PLANAR, (1,)) == (1,)
             and tags.get(headers.ORIENTATION, (1,)) == (1,))
    in_one_run = all(a + n == b for a, n, b in zip(starts, counts, starts[1:]))
    size = height * width * 3
    if not plain or not in_one_run or sum(counts) != size or starts[0] + size > len(data):
        return None
    return data[starts[0]:starts[0] + size].reshape(height, width, 3)


def _decode(data: np.ndarray, path: str | Path) -> np.ndarray:
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise TileError(f'cannot be decoded ({error.err})', where=str(path)) from None
    if image is None:
        raise TileError('cannot be decoded: the file is damaged, cut off or no image',
                        where=str(path))
    return image


def _to_rgb(image: np.ndarray, is_tiff: bool, path: str | Path) -> np.ndarray:
    """Turn what OpenCV gives (grey, BGR or BGRA, 8 or 16 bits) into 8-bit RGB."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise TileError(f'its pixels are {image.dtype}', where=str(path),
                        expected='8- or 16-bit unsigned integers')
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 4:
        image = _over_white(image, premultiplied=is_tiff)  # libtiff multiplies, libpng does not
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _over_white(image: np.ndarray, premultiplied: bool) -> np.ndarray:
    """Lay a BGRA image over a white ground."""
    colour, alpha = image[..., :3], image[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return np.ascontiguousarray(colour)
    if not premultiplied:
        colour = (colour * alpha + 127) // 255
    return np.minimum(colour + (255 - alpha), 255).astype(np.uint8)
