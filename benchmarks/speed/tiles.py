"""The bundled tiles, in the forms that the cases read."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

DEMO = Path(__file__).resolve().parents[2] / 'data/demo'
MOCO = dict(
    crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
    jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    gray=dict(type='Grayscale', p=0.2),
    blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), p=0.5),
    flip=dict(type='HorizontalFlip', p=0.5))


def demo_tiles() -> list[np.ndarray]:
    """Return the bundled tiles, uint8 (224, 224, 3)."""
    paths = sorted(DEMO.glob('*/*/*.png')) + sorted(DEMO.glob('*/*.jpg'))
    return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]


def write_tiffs(count: int) -> tempfile.TemporaryDirectory:
    """Return a folder of uncompressed TIFF files, the form of NCT-CRC-HE, in a disk's cache."""
    folder, tiles = tempfile.TemporaryDirectory(prefix='speed_'), demo_tiles()
    for i in range(count):
        Image.fromarray(tiles[i % len(tiles)]).save(Path(folder.name) / f'{i:05}.tif')
    return folder


def write_jpegs(count: int) -> tempfile.TemporaryDirectory:
    """Return a folder of JPEG files of quality 90."""
    folder, tiles = tempfile.TemporaryDirectory(prefix='speed_'), demo_tiles()
    for i in range(count):
        Image.fromarray(tiles[i % len(tiles)]).save(Path(folder.name) / f'{i:05}.jpg', quality=90)
    return folder
