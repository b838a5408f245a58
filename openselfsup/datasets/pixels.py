"""Stored samples to upright 8-bit RGB: the same rules for every format."""

import logging
from pathlib import Path

import cv2
import numpy as np

from .tile_error import TileError

logger = logging.getLogger(__name__)
_told = False  # of a narrow range, once a process


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an image as its orientation asks.

    Args:
        pixels: array of shape (H, W) or (H, W, C), as stored.
        orientation: 1 to 8 as in TIFF and EXIF; 1 changes nothing.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    down = orientation in (3, 4, 7, 8)
    across = orientation in (2, 3, 6, 7)
    return pixels[::-1 if down else 1, ::-1 if across else 1]


def to_8_bits(pixels: np.ndarray, depth: int, path: str | Path) -> np.ndarray:
    """Bring samples of ``depth`` bits to 8: fewer are spread over 0-255, of more the upper 8 stay.

    Args:
        pixels: unsigned integers.
        depth: bits of a sample that are used, 1 to 16.
        path: of the tile, for messages.

    Raises:
        TileError: a sample is larger than its depth allows.
    """
    if depth == 8 and pixels.dtype == np.uint8:
        return pixels
    top = int(pixels.max())
    if top >= 1 << depth:
        raise TileError(f'it holds the value {top}, but its header promises {depth} bits a sample',
                        expected=f'values up to {(1 << depth) - 1}')
    if depth < 8:
        return pixels.astype(np.uint8) * np.uint8(255 // ((1 << depth) - 1))
    if depth == 16 and top < 1 << 12:
        _tell_narrow(top, path)
    return (pixels >> (depth - 8)).astype(np.uint8)


def over_white(colour: np.ndarray, alpha: np.ndarray, multiplied: bool = False) -> np.ndarray:
    """Lay a transparent image over a white ground, the colour of empty glass.

    Args:
        colour: uint8 array of shape (H, W) or (H, W, C).
        alpha: uint8 array of shape (H, W), 255 where nothing shines through.
        multiplied: whether the colours are multiplied by alpha already.
    """
    if alpha.min() == 255:
        return colour
    alpha = (alpha if colour.ndim == 2 else alpha[..., None]).astype(np.uint16)
    if not multiplied:
        colour = (colour * alpha + 127) // 255
    return np.minimum(colour + (255 - alpha), 255).astype(np.uint8)


def cmyk_to_rgb(light: np.ndarray) -> np.ndarray:
    """Turn inverted CMYK (255: no ink) of shape (H, W, 4) into RGB, without a colour profile."""
    light = light.astype(np.uint16)
    return ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)


def ycbcr_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Turn YCbCr (of JPEG: BT.601, full range), uint8 of shape (H, W, 3), into RGB."""
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB)


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return a uint8 image of shape (H, W) or (H, W, 3) as contiguous, writable RGB."""
    if pixels.ndim == 2:
        return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_GRAY2RGB)
    return np.require(pixels, requirements=['C', 'W'])


def _tell_narrow(top: int, path: str | Path) -> None:
    global _told
    if not _told:
        logger.warning(
            '%s: 16 bits a sample, but no value above %d, and no tag tells of fewer bits: if it is '
            'of %d bits it will be nearly black; write the tag SMaxSampleValue (341) = %d into '
            'such TIFF files, or 8-bit values (said once)', path, top, max(top.bit_length(), 8),
            (1 << max(top.bit_length(), 8)) - 1)
    _told = True
