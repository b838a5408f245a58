"""Which tiles a source holds: told by what is in them, not by what they are called alone."""

import hashlib
import json
import os

from .parallel import parallel_map
from .sources import Source


def identity(source: Source) -> dict[str, str]:
    """Return digests by which a source is recognised; the files are not read.

    Returns:
        ``tile_names``: of the paths below the folder that all tiles share, which may have
        moved, and of the labels, in order. ``tile_contents``: of what :meth:`Source.stamp` tells
        of each tile, in order.
    """
    paths = [source.path(i) for i in range(len(source))]
    try:
        shared = len(os.path.commonpath([os.path.dirname(path) for path in paths]))
    except ValueError:  # absolute and relative paths, or several drives
        shared = 0
    names = [[path[shared:].replace(os.sep, '/'), source.label(i)] for i, path in enumerate(paths)]
    stamps = parallel_map(source.stamp, range(len(source)), threads=16)  # they wait for the disk
    return dict(tile_names=_digest(names), tile_contents=_digest(stamps))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
