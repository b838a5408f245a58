"""TIFF tiles. Oracle: the size of the header; Pillow's pixels for the forms both read alike."""

import io
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from openselfsup.datasets.decode import read_tile
from openselfsup.datasets.headers import TileError, read_header
from openselfsup.datasets.tiff_tags import can_decompress

SUFFIX = '.tif'
TISSUE = Image.open(Path(__file__).parents[2] / 'data/demo/kather2016/TUMOR/image_007.png').convert(
    'RGB').crop((0, 0, 41, 37))


def saved(form: str, image: Image.Image = TISSUE, **options: object) -> bytes:
    """Return an image as a file of a format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def zstd() -> bytes:
    """Return a tile that tifffile wrote: the libtiff of Pillow is often built without ZSTD."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(TISSUE), photometric='rgb', compression='zstd')
    return file.getvalue()


def decoded(path: Path) -> np.ndarray:
    """Read a tile as the product does; header check and decoder must agree.

    Raises:
        TileError: either refuses it.
    """
    try:
        header = read_header(path)
    except TileError as error:
        try:
            read_tile(path)
        except TileError as again:
            assert str(again) == str(error)
            raise
        raise AssertionError(f'the header check refuses what is decoded: {error}') from None
    tile = read_tile(path)
    assert tile.dtype == np.uint8 and tile.shape == (header.height, header.width, 3)
    return tile


def seeds() -> list[bytes]:
    colour_and_grey = (TISSUE, TISSUE.convert('L'))
    return [saved('TIFF', image, **options) for image in colour_and_grey for options in (
        {}, dict(compression='tiff_lzw'), dict(compression='tiff_adobe_deflate'),
        dict(compression='packbits'), dict(tiffinfo={278: 8}))] + [
        saved('TIFF', compression='jpeg'), zstd(),
        saved('TIFF', TISSUE.convert('P')), saved('TIFF', TISSUE.convert('RGBA')),
        *([saved('TIFF', TISSUE.convert('1'), compression='group4')] if can_decompress(4) else [])]


def check(path: Path, original: bytes) -> None:
    tile = decoded(path)
    try:
        with Image.open(path) as image:
            # Elsewhere Pillow has rules of its own: of alpha, ink, 16 bits, tags it does not heed.
            if image.mode not in ('RGB', 'L') or image.tag_v2.get(259, 1) not in (1, 5, 8, 32773):
                return
            if image.tag_v2.get(258, (1,))[0] != 8 or image.tag_v2.get(266, 1) != 1:
                return
            other = np.asarray(image.convert('RGB'))
    except Exception:  # Pillow need not read what we do
        return
    assert other.shape == tile.shape and np.array_equal(tile, other)
