"""Which tiles a source holds: told by what is in them, not by what they are called alone."""

import hashlib
import json
import os
from collections.abc import Sequence

from .headers import TileError
from .parallel import DISK_THREADS, parallel_map
from .sources import Source, stamp_of


def stamps(source: Source) -> list[Sequence[int] | None]:
    """Return what :meth:`Source.stamp` tells of each tile, in order; files are not read."""
    found: list[Sequence[int] | None] = []
    for stamp in parallel_map(source.stamp, range(len(source)), DISK_THREADS):
        if isinstance(stamp, TileError):
            raise stamp
        found.append(stamp)
    return found


def identity(source: Source) -> dict[str, str]:
    """Return digests by which a source is recognised; the files are not read.

    Returns:
        ``tile_names``: of the paths below the folder that all tiles share, which may have
        moved or be written otherwise (``./data``, ``data/``), and of the labels, in order.
        ``tile_contents``: of the :func:`stamps`. Of an endless source: of the names and stamps of
        its files.
    """
    paths = source.files()
    plain = [path if '://' in path else os.path.normpath(path) for path in paths]
    try:
        shared = len(os.path.commonpath([os.path.dirname(path) for path in plain]))
    except ValueError:  # absolute and relative paths, or several drives
        shared = 0
    names = [[path[shared:].replace(os.sep, '/'), None if source.endless else source.label(i)]
             for i, path in enumerate(plain)]
    contents = [stamp_of(path) for path in paths] if source.endless else stamps(source)
    return dict(tile_names=_digest(names), tile_contents=_digest(contents))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
