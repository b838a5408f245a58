"""BMP tiles. Oracle: OpenCV, for 24 bits a pixel."""

from pathlib import Path

import cv2
import numpy as np

from .tiff import TISSUE, decoded, saved

SUFFIX = '.bmp'


def seeds() -> list[bytes]:
    return [saved('BMP', TISSUE.convert(mode)) for mode in ('RGB', 'L', 'P', '1', 'RGBA')]


def check(path: Path, original: bytes) -> None:
    tile = decoded(path)
    data = np.fromfile(path, np.uint8)
    if data[28] != 24 or data[14] != 40:
        return
    other = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert other is None or np.array_equal(tile, other[..., ::-1])
