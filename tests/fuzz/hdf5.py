"""PCam's HDF5 files of tiles: no traceback, and tiles of the form that was promised."""

import functools
import io
from pathlib import Path

import h5py
import numpy as np

from openselfsup.datasets.pcam import PCam
from openselfsup.errors import UserError

SUFFIX = '.h5'
TILES = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8) // 64


def stored(key: str, values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, 'w') as h5:
        h5.create_dataset(key, data=values, **options)
    return file.getvalue()


@functools.cache
def labels() -> bytes:
    return stored('y', np.array([0, 1, 1, 0]))


def seeds() -> list[bytes]:
    return [stored('x', TILES, chunks=(1, 96, 96, 3), compression='gzip', fletcher32=True),
            stored('x', TILES, chunks=(2, 96, 96, 3), compression='gzip', fletcher32=True)]


def check(path: Path, original: bytes) -> None:
    beside = path.with_name('labels.h5')
    beside.write_bytes(labels())
    source = PCam(str(path), str(beside))
    try:
        for index in range(len(source)):
            tile = source.read(index)
            assert tile.dtype == np.uint8 and tile.ndim == 3 and tile.shape[2] == 3
    except UserError:
        pass
    finally:
        source.tiles.file.close()
