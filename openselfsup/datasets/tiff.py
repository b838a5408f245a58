"""The pixels of a TIFF file: three ways, each for exactly what it is tested for.

Uncompressed RGB, the form of NCT-CRC-HE, needs no decoder: its pixels are a window of the file.
LZW-compressed RGB goes through libtiff, three times as fast as the way of all other forms,
tifffile with imagecodecs. (OpenCV's libtiff fills damaged strips without a word.)
"""

import io
import logging
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
import tifffile

from . import tiff_tags as t
from .pixels import as_rgb, cmyk_to_rgb, over_white, to_8_bits, upright, ycbcr_to_rgb
from .tiff_tags import Tags, first
from .tile_error import TileError

# What it has to say names no file, and is said by us.
logging.getLogger('tifffile').setLevel(logging.CRITICAL)

_LZW = 5


def read_tiff(data: np.ndarray, tags: Tags, orientation: int, path: str | Path) -> np.ndarray:
    """Decode the first page of a TIFF file.

    Args:
        data: uint8, the bytes of the file.
        tags: of its first directory, which passed ``check_tiff``.
        orientation: 1 to 8.
        path: of the file, for messages.

    Returns:
        uint8 array of shape (H, W, 3), upright.

    Raises:
        TileError: its pixels are damaged.
    """
    if t.is_plain(tags) and first(tags, t.COMPRESSION, 1) == _LZW:
        pixels = _by_libtiff(data, tags)
        if pixels is not None:
            return as_rgb(pixels)
    return as_rgb(upright(_colours(_by_tifffile(data, tags), tags, path), orientation))


def raw_rgb(data: np.ndarray) -> np.ndarray | None:
    """Return the pixels of an uncompressed plain TIFF file in one run of strips, else None.

    The check of headers takes what this takes: it may be asked first, which makes it fast.
    """
    if data[:4].tobytes() not in t.TIFF_MAGIC:
        return None
    try:
        tags = t.read_tiff_tags(lambda offset, count: data[offset:offset + count].tobytes())
    except (struct.error, KeyError):
        return None
    start = t.raw_start(tags, len(data))
    if start is None:
        return None
    height, width = tags[t.LENGTH][0], tags[t.WIDTH][0]
    return data[start:start + height * width * 3].reshape(height, width, 3)


def jpeg2000_components(stream: bytes, samples: int) -> bytes:
    """Return three bytes a component: bits less 1, horizontal and vertical spacing.

    b'' where the stream has no header.
    """
    place = stream.find(b'\xff\x4f\xff\x51')
    return b'' if place < 0 else stream[place + 42:place + 42 + 3 * samples]


def _by_libtiff(data: np.ndarray, tags: Tags) -> np.ndarray | None:
    """Decode plain RGB; None where libtiff refuses (the other way says why)."""
    try:
        pixels = imagecodecs.tiff_decode(data, index=0)  # type: ignore[arg-type]  # any buffer
    except (imagecodecs.TiffError, ValueError):
        return None
    stored = (tags[t.LENGTH][0], tags[t.WIDTH][0], 3)
    return pixels if pixels.shape == stored and pixels.dtype == np.uint8 else None


def _by_tifffile(data: np.ndarray, tags: Tags) -> np.ndarray:
    """Return the samples as they are stored, (H, W) or (H, W, C)."""
    compression = first(tags, t.COMPRESSION, 1)
    try:
        with tifffile.TiffFile(io.BytesIO(data.data)) as file:
            page = file.pages.first
            if compression == 7:
                _check_jpeg(data, page)
            elif compression in t.JPEG2000:
                _check_jpeg2000(data, tags)
            pixels = page.asarray(maxworkers=1)
    except TileError:
        raise
    except Exception as error:  # each of its codecs has an exception of its own
        raise TileError(f'cannot be decoded: its pixels (compression {compression}, '
                        f'{t.COMPRESSIONS[compression]}) are damaged ({error})') from None
    samples = first(tags, t.SAMPLES, 1)
    if first(tags, t.PLANAR, 1) == 2 and samples > 1 and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    stored = (tags[t.LENGTH][0], tags[t.WIDTH][0], *((samples,) if samples > 1 else ()))
    if pixels.shape != stored:
        raise TileError(f'cannot be decoded: it holds {pixels.shape} samples, its header promises '
                        f'{stored}')
    return pixels


def _colours(pixels: np.ndarray, tags: Tags, path: str | Path) -> np.ndarray:
    """Turn stored samples into 8-bit grey or RGB by the tags."""
    photometric = tags[t.PHOTOMETRIC][0]
    if photometric == t.PALETTE:
        colours: np.ndarray = np.array(tags[t.COLOUR_MAP], np.uint16).reshape(3, -1).T
        if colours.max() > 255:  # some write 8-bit values where 16 bits belong
            colours = colours >> 8
        return colours.astype(np.uint8)[pixels]
    pixels = to_8_bits(pixels.view(np.uint8) if pixels.dtype == bool else pixels, t.depth(tags),
                       path)
    alpha = t.alpha_kind(tags)
    ground = pixels[..., alpha[0]] if alpha else None
    if photometric == t.CMYK:
        return cmyk_to_rgb(255 - pixels)
    if photometric in (t.GREY, t.GREY_INVERTED):
        pixels = pixels if pixels.ndim == 2 else pixels[..., 0]
        pixels = pixels if photometric == t.GREY else 255 - pixels
    else:
        pixels = pixels[..., :3]
    if first(tags, t.COMPRESSION, 1) == t.APERIO_YCBCR:  # whatever the photometric tag says
        pixels = ycbcr_to_rgb(pixels)
    return pixels if ground is None or alpha is None else over_white(pixels, ground, alpha[1])


def _check_jpeg(data: np.ndarray, page: tifffile.TiffPage) -> None:
    """Raise where a strip's JPEG stream is damaged, which the decoder would fill with grey."""
    tables = page.jpegtables
    for start, count in zip(page.dataoffsets, page.databytecounts):
        stream = data[start:start + count].tobytes()
        if tables and tables[:2] == stream[:2] == b'\xff\xd8':
            stream = tables[:tables.rindex(b'\xff\xd9')] + stream[2:]
        colours = simplejpeg.decode_jpeg_header(stream)[2]
        simplejpeg.decode_jpeg(stream, 'CMYK' if colours in ('CMYK', 'YCCK') else 'GRAY')


def _check_jpeg2000(data: np.ndarray, tags: Tags) -> None:
    """Raise where a JPEG 2000 stream is cut off or its samples are not what the tags say."""
    bits, samples = first(tags, t.BITS, 1), first(tags, t.SAMPLES, 1)
    samples = 1 if first(tags, t.PLANAR, 1) == 2 else samples
    for start, count in zip(*t.segments(tags)):
        stream = data[start:start + count].tobytes()
        components = jpeg2000_components(stream, samples)
        if not components or b'\xff\xd9' not in stream[-4:]:
            raise TileError('cannot be decoded: a JPEG 2000 stream is damaged or cut off')
        if set(components[0::3]) != {bits - 1} or set(components[1::3] + components[2::3]) != {1}:
            raise TileError(
                f'its JPEG 2000 streams have samples of {components[0] + 1} bits with a spacing '
                f'of {max(components[1::3] + components[2::3])}, the tag {t.NAMES[t.BITS]} '
                f'({t.BITS}) is {bits}', expected=f'the same, and a spacing of 1; {t.REMEDY}')
