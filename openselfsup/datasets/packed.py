"""Packed tiles: one memory-mapped file of raw pixels, for feeding a GPU.

A store is a folder of two files: ``tiles.u8``, the N tiles one after another as uint8
(H, W, 3), and ``index.json`` with their size, paths, labels and checksums (CRC-32 of each
tile's pixels). While it is written its pixels are in ``tiles.u8.part`` and what is known of
them in ``journal.jsonl``, a line for each tile behind a line that says what is being packed:
whoever is killed goes on from there.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from ..claims import claimed
from ..errors import UserError
from ..registry import SOURCES
from .headers import TileError
from .identity import identity
from .labeled import resize_and_crop
from .parallel import default_workers, parallel_map
from .sources import Source
from .tile_error import read_checked

INDEX, TILES, PART, JOURNAL = 'index.json', 'tiles.u8', 'tiles.u8.part', 'journal.jsonl'
FORMAT = dict(format='packed tiles', version=1)
CHUNK = 256  # tiles written between two times that the disk is asked to keep them


@SOURCES.register_module()
class PackedTiles(Source):
    """The tiles of a store that :func:`pack` wrote (``openselfsup pack``).

    Opening it maps the file and reads no tile. Tiles are views of that memory: they cost a
    copy at most, and processes on one machine share the pages.

    Args:
        root: folder of the store.
        labels: False to take no labels.

    Attributes:
        tile_size: (height, width) of all tiles in pixels.
        checksums: uint32 (N,), CRC-32 of each tile's pixels.

    Raises:
        UserError: no store there, an unfinished one, one of another version, or one whose
            files do not fit each other.
    """

    tile_size: tuple[int, int]

    def __init__(self, root: str, labels: bool = True):
        self.root = str(root)
        index = _read_index(Path(root))
        self.paths = [entry[0] for entry in index['tiles']]
        self.tile_size = (index['height'], index['width'])
        self.checksums = np.array([entry[2] for entry in index['tiles']], np.uint32)
        if labels and self.paths and index['tiles'][0][1] is not None:
            self.labels = np.array([entry[1] for entry in index['tiles']], np.int64)
            self.classes = index['classes']
        shape = (len(self.paths), *self.tile_size, 3)
        file = Path(root) / TILES
        size = file.stat().st_size if file.is_file() else 0
        if size != np.prod(shape, dtype=np.int64) or not size:
            raise UserError(f'{size:,} bytes', where=str(file),
                            expected=f'{np.prod(shape, dtype=np.int64):,} bytes of {shape[0]} '
                                     f'tiles of {shape[2]} x {shape[1]} px; pack them again')
        self._tiles = np.memmap(file, np.uint8, 'r', shape=shape)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        """Return tile ``index``, uint8 (H, W, 3): a view of the store that cannot be written."""
        return self._tiles[index]

    def gather(self, indices: Sequence[int] | np.ndarray, out: np.ndarray) -> None:
        """Copy tiles into ``out``, uint8 (B, H, W, 3), contiguous."""
        # One call for all tiles, without Python's lock; 'clip' is what needs no buffer.
        np.take(self._tiles, indices, axis=0, out=out, mode='clip')

    def path(self, index: int) -> str:
        return self.paths[index]

    def stamp(self, index: int) -> tuple[int]:
        """Return the checksum of the tile's pixels."""
        return (int(self.checksums[index]),)

    def damaged(self, on_progress: Callable[[int], None] = lambda done: None) -> list[str]:
        """Read the whole store and return the paths of the tiles that have changed.

        Args:
            on_progress: called with the number of tiles read so far.
        """
        def look(index: int) -> int:
            if index % CHUNK == 0:
                on_progress(index)
            return zlib.crc32(self._tiles[index])

        found = np.array(parallel_map(look, range(len(self)), default_workers()), np.uint32)
        return [self.paths[i] for i in np.flatnonzero(found != self.checksums)]


def pack(source: Source, out: str | Path, size: int | None = None, skip_corrupt: bool = False,
         on_progress: Callable[[int], None] = lambda done: None) -> PackedTiles:
    """Write the tiles of a source into a store, or go on where a killed process stopped.

    Args:
        source: any source.
        out: folder of the store, made if need be. A finished store of the same tiles is left
            as it is.
        size: resize the short side of every tile to this and crop its centre; None takes tiles
            as they are, which must then all be of one size.
        skip_corrupt: leave unreadable tiles out of the store.
        on_progress: called with the number of tiles of the source that are done.

    Returns:
        The store.

    Raises:
        UserError: an unreadable tile or one of another size (what is packed so far stays), a
            folder that holds a store of other tiles or into which another process writes, or
            tiles that changed while they were packed.
    """
    out = Path(out)
    head = _head(source, size)
    if (finished := _finished(out, head)) is not None:  # may lie where nobody can write
        return finished
    with claimed(out, 'packing tiles'):
        return _pack(source, out, head, size, skip_corrupt, on_progress)


def _finished(out: Path, head: dict) -> PackedTiles | None:
    """Return the finished store of these tiles in a folder, None if there is none."""
    if not (out / INDEX).exists():
        return None
    index = _read_index(out)
    check_same(index, head, out, f"a store of {len(index['tiles'])} other tiles")
    return PackedTiles(str(out))


def _pack(source: Source, out: Path, head: dict, size: int | None, skip_corrupt: bool,
          on_progress: Callable[[int], None]) -> PackedTiles:
    if (finished := _finished(out, head)) is not None:  # by another process, meanwhile
        return finished
    if (out / TILES).exists():  # killed between the two last renames
        os.replace(out / TILES, out / PART)
    entries = _resume(out, head)
    with (open(out / PART, 'r+b') as tiles, open(out / JOURNAL, 'ab') as journal,
          ThreadPoolExecutor(default_workers(), 'pack') as pool):
        kept = sum(checksum is not None for _, checksum in entries)
        tiles.truncate(kept * head['height'] * head['width'] * 3)
        tiles.seek(0, os.SEEK_END)
        while len(entries) < len(source):
            on_progress(len(entries))
            chunk = range(len(entries), min(len(entries) + CHUNK, len(source)))
            made = list(pool.map(lambda i: _made(source, i, head, size, skip_corrupt), chunk))
            tiles.writelines(tile.data for tile in made if tile is not None)
            flush(tiles)
            new = [(i, None if tile is None else zlib.crc32(tile.data))
                   for i, tile in zip(chunk, made)]
            journal.writelines(json.dumps(entry).encode() + b'\n' for entry in new)
            flush(journal)
            entries += new
    on_progress(len(entries))
    check_unchanged(source, head, out)
    _finish(source, out, head, entries)
    return PackedTiles(str(out))


def _head(source: Source, size: int | None) -> dict:
    """Return what identifies the content of a store."""
    height, width = (size, size) if size else _first_tile(source).shape[:2]
    names = json.dumps([[source.path(i), source.label(i)] for i in range(len(source))])
    digest = hashlib.sha256(f'{height} {width} {size} {names}'.encode()).hexdigest()
    return dict(FORMAT, height=height, width=width, digest=digest,
                contents=identity(source)['tile_contents'])


def check_unchanged(source: Source, head: dict, out: Path) -> None:
    """Raise UserError if the tiles are no longer those whose ``contents`` a head tells."""
    if identity(source)['tile_contents'] != head['contents']:
        raise UserError('the tiles were changed while they were packed', where=str(out),
                        expected='another folder, or this one removed, and tiles that nobody '
                                 'writes')


def check_same(written: dict, head: dict, out: Path, what: str) -> None:
    """Raise UserError if what a folder holds was not made from these tiles as they are now.

    Args:
        written: what identifies the folder's content: its ``digest`` and ``contents``.
        head: the same of these tiles.
        out: the folder.
        what: what it holds if it is of other tiles, in words.
    """
    if written.get('digest') != head['digest']:
        raise UserError(f'this folder holds {what}', where=str(out), expected='another folder')
    if 'contents' not in written:
        raise UserError('an earlier version packed this folder: whether the files have changed '
                        'since cannot be told', where=str(out),
                        expected='another folder, or this one removed')
    if written['contents'] != head['contents']:
        raise UserError('this folder holds these tiles as they were before: files have another '
                        'size or time of change now', where=str(out),
                        expected='another folder, or this one removed')


def _first_tile(source: Source) -> np.ndarray:
    for index in range(len(source)):
        try:
            return read_checked(source, index)
        except TileError as error:
            last = error
    raise last


def _made(source: Source, index: int, head: dict, size: int | None,
          skip_corrupt: bool) -> np.ndarray | None:
    """Return the tile as it is stored, None for an unreadable one that is left out."""
    try:
        tile = read_checked(source, index)
    except TileError as error:
        if skip_corrupt:
            return None
        raise UserError(str(error), expected='a readable tile, or --skip-corrupt') from None
    if size:
        tile = resize_and_crop(tile, size, size)
    if tile.shape[:2] != (head['height'], head['width']):
        raise UserError(f'this tile has {tile.shape[1]} x {tile.shape[0]} px, others have '
                        f"{head['width']} x {head['height']}", where=source.path(index),
                        expected='tiles of one size, or --size')
    return np.ascontiguousarray(tile)


def _resume(out: Path, head: dict) -> list[tuple[int, int | None]]:
    """Return (index, checksum) of the tiles that are on disk; the journal ends with them after."""
    journal, part = out / JOURNAL, out / PART
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    if not lines or not lines[0].endswith(b'\n'):
        journal.write_bytes(json.dumps(head).encode() + b'\n')
        part.write_bytes(b'')
        return []
    check_same(json.loads(lines[0]), head, out, 'a part of a store of other tiles')
    room = part.stat().st_size // (head['height'] * head['width'] * 3)
    entries: list[tuple[int, int | None]] = []
    end = len(lines[0])
    for line in lines[1:]:
        if not line.endswith(b'\n'):
            break
        index, checksum = json.loads(line)
        room -= checksum is not None
        if room < 0:  # the machine stopped before the disk had it
            break
        entries.append((index, checksum))
        end += len(line)
    os.truncate(journal, end)
    return entries


def _finish(source: Source, out: Path, head: dict, entries: list[tuple[int, int | None]]) -> None:
    tiles = [(source.path(i), source.label(i), checksum) for i, checksum in entries
             if checksum is not None]
    skipped = [source.path(i) for i, checksum in entries if checksum is None]
    index = dict(head, classes=source.classes, skipped=skipped, tiles=tiles)
    os.replace(out / PART, out / TILES)
    with open(out / (INDEX + '.part'), 'w', encoding='utf-8') as file:
        json.dump(index, file)
        flush(file)
    os.replace(out / (INDEX + '.part'), out / INDEX)
    (out / JOURNAL).unlink()


def flush(file: IO) -> None:
    """Force what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def _read_index(root: Path) -> dict:
    path = root / INDEX
    if not path.is_file():
        unfinished = (root / JOURNAL).exists()
        raise UserError('this store is not finished' if unfinished else 'no store of packed tiles',
                        where=str(root), expected='a folder written by openselfsup pack'
                        + (', which goes on where it stopped' if unfinished else ''))
    try:
        index = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f'damaged ({error})', where=str(path),
                        expected='an index written by openselfsup pack') from None
    if not isinstance(index, dict) or {key: index.get(key) for key in FORMAT} != FORMAT:
        raise UserError('another format or version', where=str(path),
                        expected=', '.join(f'{k} {v}' for k, v in FORMAT.items()))
    return index
