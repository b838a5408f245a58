"""PNG tiles. Oracle: Pillow, for opaque 8-bit pixels."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .tiff import TISSUE, decoded, saved

SUFFIX = '.png'


def seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[274] = 6
    return [saved('PNG', TISSUE.convert(mode)) for mode in ('RGB', 'L', 'P', '1', 'RGBA', 'LA')] + [
        saved('PNG', exif=exif), saved('PNG', TISSUE.convert('I;16'))]


def check(path: Path, original: bytes) -> None:
    tile = decoded(path)
    try:
        with Image.open(path) as image:
            if image.mode not in ('RGB', 'L') or 'transparency' in image.info:
                return
            other = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    except Exception:  # Pillow need not read what we do
        return
    assert other.shape == tile.shape and np.array_equal(tile, other)
