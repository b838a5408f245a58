"""Synthetic whole slides: real tissue, enlarged by mirroring, on glass, in pyramids of tiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import tifffile

from .tiles import DEMO


def demo_tissue(width: int, height: int, glass: int) -> np.ndarray:
    """Return the :func:`mosaic` of the bundled tiles of a real slide that hold most tissue."""
    tiles = [cv2.imread(str(path))[..., ::-1] for path in sorted((DEMO / 'cmu1').glob('*.jpg'))]
    return mosaic(sorted(tiles, key=np.mean)[:8], width, height, glass)  # glass is bright


def mosaic(tiles: Sequence[np.ndarray], width: int, height: int, glass: int) -> np.ndarray:
    """Return tissue of mirrored tiles with a margin of glass, uint8 (height, width, 3).

    Args:
        tiles: uint8 (S, S, 3), all of one size.
        width, height: of the result.
        glass: width of the margin in pixels.
    """
    side = len(tiles[0])
    image = np.full((height, width, 3), 245, np.uint8)
    number = 0
    for top in range(glass, height - glass, side):
        for left in range(glass, width - glass, side):
            tile = tiles[number % len(tiles)][::1 - 2 * (number % 2), ::1 - 2 * (number // 2 % 2)]
            high, wide = min(side, height - glass - top), min(side, width - glass - left)
            image[top:top + high, left:left + wide] = tile[:high, :wide]
            number += 1
    return image


def write_slide(path: str | Path, image: np.ndarray, mpp: float | None = 0.5,
                downsamples: Sequence[int] = (1, 4), tile: int = 256, quality: int = 90,
                kind: Literal['tiff', 'svs', 'ome'] = 'tiff', big: bool = False,
                compression: str = 'jpeg') -> None:
    """Write a slide of tiled TIFF.

    Args:
        path: the file; of OME-TIFF it ends in .ome.tif.
        image: the base level, uint8 (H, W, 3).
        mpp: its micrometres per pixel; None tells none.
        downsamples: of the levels, the base first.
        tile: side of the native tiles.
        quality: of JPEG.
        kind: the words and the order of pages of this format.
        big: write BigTIFF.
        compression: 'jpeg', or another of tifffile's.
    """
    options: dict = dict(tile=(tile, tile), photometric='rgb', compression=compression)
    if compression == 'jpeg':
        options.update(compressionargs=dict(level=quality))  # tifffile stores RGB as YCbCr
    if mpp and kind == 'tiff':
        options.update(resolution=(1e4 / mpp, 1e4 / mpp), resolutionunit='CENTIMETER')
    levels = [cv2.resize(image, (image.shape[1] // n, image.shape[0] // n),
                         interpolation=cv2.INTER_AREA) if n > 1 else image for n in downsamples]
    with tifffile.TiffWriter(path, bigtiff=big, ome=kind == 'ome') as file:
        if kind == 'ome':
            told = dict(axes='YXS', **(dict(PhysicalSizeX=mpp, PhysicalSizeXUnit='µm') if mpp
                                       else {}))
            file.write(levels[0], subifds=len(levels) - 1, metadata=told, **options)
            for level in levels[1:]:
                file.write(level, subfiletype=1, **options)
            return
        words = f'Aperio Image Library v1\n{image.shape[1]}x{image.shape[0]}' + (
            f'|MPP = {mpp:g}' if mpp else '') if kind == 'svs' else None
        for number, level in enumerate(levels):
            file.write(level, description=words, metadata=None, **options,
                       subfiletype=int(number > 0 and kind == 'tiff'))
            if number == 0 and kind == 'svs':  # the second page of Aperio's is a thumbnail
                file.write(cv2.resize(image, (64, 64)), description=words, metadata=None,
                           photometric='rgb')
