"""JPEG tiles. Oracle: Pillow, whose libjpeg-turbo may be of another version."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .tiff import TISSUE, decoded, saved

SUFFIX = '.jpg'


def seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[274] = 6
    return [saved('JPEG', quality=90, **options) for options in (
        {}, dict(progressive=True), dict(subsampling=0), dict(restart_marker_rows=1),
        dict(exif=exif))] + [saved('JPEG', TISSUE.convert(mode)) for mode in ('L', 'CMYK')]


def check(path: Path, original: bytes) -> None:
    tile = decoded(path)
    try:
        with Image.open(path) as image:
            other = np.asarray(ImageOps.exif_transpose(image).convert('RGB')).astype(int)
    except Exception:  # Pillow need not read what we do
        return
    assert other.shape == tile.shape and np.abs(tile - other).max() <= 2
