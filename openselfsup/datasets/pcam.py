"""PatchCamelyon as it is published: HDF5 files of 96 x 96 tiles, without unpacking them."""

import threading
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..registry import SOURCES
from .sources import Source

CLASSES = ['neg', 'pos']


@SOURCES.register_module()
class PCam(Source):
    """Tiles of ``camelyonpatch_level_2_split_*_x.h5`` and their labels.

    Args:
        x: the file of tiles, key ``x``, uint8 (N, 96, 96, 3).
        y: the file of labels, key ``y``, N numbers; by default beside ``x``, where its name
            ends in ``_y.h5`` instead of ``_x.h5``.

    Raises:
        UserError: a file is missing, packed, not HDF5, or of another form.
    """

    def __init__(self, x: str, y: str | None = None):
        self.name = str(x)
        self.lock = threading.Lock()  # HDF5 reads one chunk at a time anyway
        self.tiles = _open(x, 'x')
        labels = _open(y or str(x).replace('_x.h5', '_y.h5'), 'y')
        shape = self.tiles.shape
        if self.tiles.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise UserError(f'the tiles are {self.tiles.dtype} of shape {shape}', where=self.name,
                            expected='uint8 of shape (N, 96, 96, 3)')
        self.labels = labels[:].reshape(-1).astype(np.int64)
        if len(self.labels) != len(self.tiles):
            raise UserError(f'{len(self.tiles)} tiles but {len(self.labels)} labels',
                            where=self.name)
        if not set(np.unique(self.labels)) <= {0, 1}:
            raise UserError('labels other than 0 and 1', where=self.name)
        self.classes = list(CLASSES)

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, index: int) -> np.ndarray:
        with self.lock:
            return self.tiles[index]

    def path(self, index: int) -> str:
        return f'{self.name}#{index}'


def _open(path: str, key: str):
    """Return the HDF5 data set ``key`` of a file that stays open."""
    import h5py  # only those who bring HDF5 files need it
    file = Path(path)
    if not file.is_file() and Path(f'{path}.gz').is_file():
        raise UserError('this file is still packed', where=f'{path}.gz',
                        expected=f'gunzip {path}.gz')
    if not file.is_file():
        raise UserError('no such file', where=str(path))
    try:
        return h5py.File(file, 'r')[key]
    except (OSError, KeyError):
        raise UserError(f"this is no HDF5 file with a key '{key}'", where=str(path)) from None
