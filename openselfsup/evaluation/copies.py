"""Which tiles are copies of each other, told from the bytes of files or from pixels."""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from hashlib import blake2b
from typing import TypeVar

import numpy as np

from ..datasets.parallel import DISK_THREADS, parallel_map
from ..datasets.sources import Source
from ..datasets.tile_error import read_checked
from ..errors import UserError

_PROBE = 4096  # bytes from the middle of a file, which tell nearly all files of one size apart

T = TypeVar('T')


def pixel_number(tile: np.ndarray) -> int:
    """Return a 64-bit number of a tile's pixels and shape: equal tiles have equal numbers."""
    digest = blake2b(repr(tile.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(tile).data)
    return int.from_bytes(digest.digest(), 'little', signed=True)


def same_files(*parts: Source) -> list[np.ndarray]:
    """Number the tiles of several sources so that those of byte-identical files are the same.

    Most files are told apart by their size or by a few bytes of their middle, so that few are
    read as a whole. Tiles inside a container such as HDF5 all get numbers of their own.

    Args:
        parts: the sources.

    Returns:
        For each source an int64 array of shape (N,).

    Raises:
        UserError: a file can no longer be read.
    """
    paths = [source.path(i) for source in parts for i in range(len(source))]
    keys: list[Hashable] = parallel_map(_size, paths, DISK_THREADS)
    for look in (_middle, _whole):
        counts = Counter(keys)
        open_ = [i for i, key in enumerate(keys) if counts[key] > 1 and not isinstance(key, str)]
        for i, found in zip(open_, parallel_map(look, [paths[i] for i in open_], DISK_THREADS)):
            keys[i] = (keys[i], found)
    return _numbered(keys, parts)


def same_pixels(source: Source) -> np.ndarray:
    """Number the tiles of a source so that those of equal pixels are the same, reading all."""
    numbers = parallel_map(lambda i: pixel_number(read_checked(source, i)), range(len(source)),
                           DISK_THREADS)
    if failed := next((n for n in numbers if not isinstance(n, int)), None):
        raise UserError(str(failed))
    return np.array(numbers, np.int64)


def _size(path: str) -> int | str:
    """Return a file's size, the path itself for a tile inside a container."""
    return _read(path, os.path.getsize) if os.path.isfile(path) else path


def _middle(path: str) -> bytes:
    def look(path: str) -> bytes:
        with open(path, 'rb') as file:
            file.seek(max(0, (os.path.getsize(path) - _PROBE) // 2))
            return blake2b(file.read(_PROBE), digest_size=16).digest()
    return _read(path, look)


def _whole(path: str) -> bytes:
    def look(path: str) -> bytes:
        with open(path, 'rb') as file:
            return blake2b(file.read(), digest_size=16).digest()
    return _read(path, look)


def _read(path: str, look: Callable[[str], T]) -> T:
    try:
        return look(path)
    except OSError as error:
        raise UserError(f'could not be read: {error.strerror}', where=path) from None


def _numbered(keys: Sequence[Hashable], parts: Sequence[Source]) -> list[np.ndarray]:
    known: dict[Hashable, int] = {}
    numbers = np.array([known.setdefault(key, len(known)) for key in keys], np.int64)
    return np.split(numbers, np.cumsum([len(source) for source in parts])[:-1])
