"""What is said of a tile that cannot be used, and the sizes that can."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    from .sources import Source

MIN_SIZE = 32
MAX_PIXELS = 2 ** 28  # 800 MB as RGB: a damaged header asks for more than that


class TileError(UserError):
    """One tile that cannot be used: missing, damaged, of another format, too small."""

    def at(self, path: str | Path) -> 'TileError':
        """Return the same error with the file that it is about."""
        return TileError(self.what, where=str(path), expected=self.expected)


def check_size(height: int, width: int, path: str | Path | None = None) -> None:
    """Raise TileError if a tile is smaller than any view could use, or far larger than a tile."""
    where = None if path is None else str(path)
    if min(height, width) < MIN_SIZE:
        raise TileError(f'the tile is only {width} x {height} px', where=where,
                        expected=f'at least {MIN_SIZE} x {MIN_SIZE} px')
    if height * width > MAX_PIXELS:
        raise TileError(f'the tile is {width} x {height} px', where=where,
                        expected=f'at most {MAX_PIXELS:,} px in all; cut it into tiles')


def read_checked(source: 'Source', index: int) -> np.ndarray:
    """Read a tile of a source, which may be a user's own.

    Raises:
        TileError: the tile cannot be read.
        UserError: what was read is no uint8 array of shape (H, W, 3).
    """
    tile = source.read(index)
    if isinstance(tile, np.ndarray) and tile.dtype == np.uint8 and tile.shape[2:] == (3,):
        return tile
    what = (f'{tile.dtype} of shape {tile.shape}' if isinstance(tile, np.ndarray)
            else f'a {type(tile).__name__}')
    raise UserError(f'{type(source).__name__}.read gives {what}', where=source.path(index),
                    expected='a uint8 array of shape (H, W, 3), RGB')
