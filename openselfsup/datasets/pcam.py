"""PatchCamelyon as it is published: HDF5 files of 96 x 96 tiles, without unpacking them."""

import re
import threading
from pathlib import Path

import numpy as np

from ..errors import UserError, nearest
from ..registry import SOURCES
from .headers import TileError
from .sources import Source, stamp_of

CLASSES = ['neg', 'pos']
MAX_LABELS = 10 ** 8
# What h5py raises on damaged files: OSError by its documentation, the others in fact.
_DAMAGED = (OSError, KeyError, RuntimeError, ValueError, TypeError)


@SOURCES.register_module()
class PCam(Source):
    """Tiles of ``camelyonpatch_level_2_split_*_x.h5`` and their labels.

    Args:
        x: the file of tiles, key ``x``, uint8 (N, 96, 96, 3).
        y: the file of labels, key ``y``, N numbers; by default beside ``x``, where its name
            ends in ``_y.h5`` instead of ``_x.h5``.

    Raises:
        UserError: a file is missing, packed, cut off, damaged, not HDF5, or of another form.
    """

    def __init__(self, x: str, y: str | None = None):
        self.name = str(x)
        self.lock = threading.Lock()  # HDF5 reads one chunk at a time anyway
        self.tiles = _open(x, 'x')
        self._stamp = stamp_of(x)
        y_name = y or str(x).replace('_x.h5', '_y.h5')
        labels = _open(y_name, 'y')
        shape = self.tiles.shape
        if self.tiles.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise UserError(f'the tiles are {self.tiles.dtype} of shape {shape}', where=self.name,
                            expected='uint8 of shape (N, 96, 96, 3)')
        self.labels = _labels(labels, y_name)
        if len(self.labels) != len(self.tiles):
            raise UserError(f'{len(self.tiles)} tiles but {len(self.labels)} labels',
                            where=self.name)
        if not set(np.unique(self.labels)) <= {0, 1}:
            raise UserError('labels other than 0 and 1', where=self.name)
        self.classes = list(CLASSES)

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, index: int) -> np.ndarray:
        try:
            with self.lock:
                return self.tiles[index]
        except _DAMAGED as error:
            raise _damaged(error, self.path(index)) from None

    def path(self, index: int) -> str:
        return f'{self.name}#{index}'

    def stamp(self, index: int) -> tuple[int, int] | None:
        """Return size and time of change that the file of all tiles had when it was opened."""
        return self._stamp


def _labels(data, path: str) -> np.ndarray:
    """Read all labels as int64 (N,)."""
    if data.dtype.kind not in 'iub' or data.size > MAX_LABELS:
        raise UserError(f'the labels are {data.dtype} of shape {data.shape}', where=path,
                        expected='N whole numbers')
    try:
        return data[()].reshape(-1).astype(np.int64)
    except _DAMAGED as error:
        raise _damaged(error, path) from None


def _open(path: str, key: str):
    """Return the HDF5 data set ``key`` of a file that stays open."""
    import h5py  # only those who bring HDF5 files need it
    file = Path(path)
    if not file.is_file() and Path(f'{path}.gz').is_file():
        raise UserError('this file is still packed', where=f'{path}.gz',
                        expected=f'gunzip {path}.gz')
    if not file.is_file():
        raise UserError('no such file', where=str(path))
    if not h5py.is_hdf5(file):
        raise UserError('this is no HDF5 file, or its beginning is damaged', where=str(path))
    try:
        opened = h5py.File(file, 'r')
        names = list(opened)
        found = opened.get(key)
    except _DAMAGED as error:
        raise _damaged(error, path) from None
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"it has no data set '{key}'", where=str(path),
                        nearest=nearest(key, names))
    return found


def _damaged(error: Exception, path: str) -> TileError:
    """Return what h5py's error means; it names a cut file by 'truncated' and two sizes."""
    cut = re.search(r'truncated file: eof = (\d+).*stored_eof = (\d+)', str(error))
    if cut:
        return TileError(f'the file is cut off: it has {int(cut[1]):,} bytes', where=path,
                         expected=f'{int(cut[2]):,}; copy or unpack it again')
    return TileError(f'the file is damaged ({error})', where=path)
