"""What is said of a tile that cannot be used, and the sizes that can."""

from pathlib import Path

from ..errors import UserError

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
