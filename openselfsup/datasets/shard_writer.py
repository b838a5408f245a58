"""Packing tiles into shards; what a shard is: :mod:`.shard_index`."""

import dataclasses
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import simplejpeg

from ..claims import claimed
from ..errors import UserError
from ..files import reason, write_text
from .decode import decode_tile, read_bytes
from .headers import TileError
from .identity import identity
from .labeled import resize_and_crop
from .packed import JOURNAL, check_same, check_unchanged, flush
from .parallel import default_workers
from .prefetch import prefetch
from .shard_index import FORMAT, INDEX, parse_index
from .shards import Shards
from .sources import FileSource, Source
from .tile_error import read_checked

Encoding = Literal['keep', 'jpeg', 'png', 'raw']
AHEAD = 64  # tiles that are encoded while others are written
JPEG_QUALITY = 90  # at full resolution of colours, which stains are made of


@dataclasses.dataclass(frozen=True)
class _Made:
    """A tile as it is stored."""

    data: bytes
    suffix: str
    size: tuple[int, int]


def write_shards(source: Source, out: str | Path, encoding: Encoding | None = None,
                 size: int | None = None, shard_mb: float = 256, shuffle: bool = True,
                 skip_corrupt: bool = False,
                 on_progress: Callable[[int], None] = lambda done: None) -> Shards:
    """Write the tiles of a source into shards, or go on behind the last whole shard.

    The same tiles and settings give the same bytes.

    Args:
        source: any source.
        out: folder of the shards, made if need be. Finished shards of the same tiles are left as
            they are.
        encoding: 'keep' stores files as they are, 'jpeg' (quality 90), 'png' and 'raw' (pixels,
            as .npy) encode the tiles; None keeps files and takes 'png' for other tiles.
        size: resize the short side of every tile to this and crop its centre.
        shard_mb: size of a shard in megabytes; the last one is smaller.
        shuffle: pack in random order, always the same. An epoch mixes the tiles of some shards at
            a time, so each of them should hold tiles of every kind.
        skip_corrupt: leave unreadable tiles out; each tile is decoded once in any case.
        on_progress: called with the number of tiles of the source that are done.

    Raises:
        UserError: an unreadable tile (whole shards stay), a folder that holds other tiles or into
            which another process writes, or tiles that changed while they were packed.
    """
    out = Path(out)
    keeps = isinstance(source, FileSource) and size is None
    encoding = encoding or ('keep' if keeps else 'png')
    if encoding == 'keep' and not keeps:
        raise UserError('only files are stored as they are, not '
                        + ('tiles of another size' if size else type(source).__name__),
                        where='encoding', expected="'jpeg', 'png' or 'raw'")
    head = _head(source, [encoding, size, shard_mb, shuffle])
    if (finished := _finished(out, head)) is not None:  # may lie where nobody can write
        return finished

    def encode(index: int) -> _Made | None:
        try:
            return _encoded(source, int(index), encoding, size)
        except TileError as error:
            if skip_corrupt:
                return None
            raise UserError(str(error), expected='a readable tile, or --skip-corrupt') from None

    with claimed(out, 'packing shards'):
        if (finished := _finished(out, head)) is not None:  # by another process, meanwhile
            return finished
        try:
            return _write(source, out, head, encode, shard_mb, shuffle, on_progress)
        except OSError as error:
            raise UserError(f'could not be written: {reason(error)}; whole shards stay',
                            where=str(out), expected='the same command again, once that is '
                                                     'mended') from error


def _write(source: Source, out: Path, head: dict, encode: Callable[[int], _Made | None],
           shard_mb: float, shuffle: bool, on_progress: Callable[[int], None]) -> Shards:
    order = np.arange(len(source))
    if shuffle:  # by the legacy generator, whose numbers never change
        order = np.random.RandomState(0).permutation(len(source))
    lines = _resume(out, head)
    done = lines[-1]['done'] if lines else 0
    workers = default_workers()
    with open(out / JOURNAL, 'ab') as journal:
        writing = _ShardFile(out, len(lines), source)
        for made in prefetch(encode, order[done:], workers, workers + AHEAD, 'pack'):
            writing.add(int(order[done]), made)
            done += 1
            on_progress(done)
            if writing.size >= shard_mb * 1e6 or done == len(source):
                lines.append(dict(writing.finish(), done=done))
                journal.write(json.dumps(lines[-1]).encode() + b'\n')
                flush(journal)
                writing = _ShardFile(out, len(lines), source)
    check_unchanged(source, head, out)
    _finish(source, out, head, lines)
    return Shards(str(out))


class _ShardFile:
    """A shard in the making; its file is there when it is finished, or at the first tile."""

    def __init__(self, out: Path, number: int, source: Source):
        self._path = out / f'shard-{number:06}.tar'
        self._part = self._path.with_name(self._path.name + '.part')
        self._source = source
        self._tar: tarfile.TarFile | None = None
        self._rows: list[tuple] = []
        self._skipped: list[int] = []

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._tar.offset if self._tar else 0

    def add(self, index: int, made: _Made | None) -> None:
        """Add tile ``index`` of the source, or note that it cannot be read."""
        if made is None:
            self._skipped.append(index)
            return
        self._tar = self._tar or tarfile.open(self._part, 'w', format=tarfile.USTAR_FORMAT)
        offset = self._add(f'{index:09}{made.suffix}', made.data)
        self._rows.append((index, offset, len(made.data), zlib.crc32(made.data), *made.size))
        label = self._source.label(index)
        if label is not None:
            self._add(f'{index:09}.cls', str(label).encode())

    def _add(self, name: str, data: bytes) -> int:
        assert self._tar is not None
        member = tarfile.TarInfo(name)  # of no time and no owner: the same bytes each time
        member.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(data))
        return offset

    def finish(self) -> dict[str, Any]:
        """Give the file its name and return the line of the journal that it is."""
        line: dict[str, Any] = dict(shard=None, rows=self._rows, skipped=self._skipped)
        if self._tar:
            self._tar.close()
            digest = hashlib.sha256()
            with open(self._part, 'r+b') as file:
                while block := file.read(1 << 22):
                    digest.update(block)
                line['shard'] = dict(name=self._path.name, size=file.tell(),
                                     sha256=digest.hexdigest(), tiles=len(self._rows))
                flush(file)
            os.replace(self._part, self._path)
        return line


def _encoded(source: Source, index: int, encoding: Encoding, size: int | None) -> _Made:
    """Return a tile as it is stored; it has been decoded.

    Raises:
        TileError: it cannot be read.
    """
    if encoding == 'keep':
        path = source.path(index)
        data = read_bytes(path)
        height, width, _ = decode_tile(data, path).shape
        return _Made(data.tobytes(), Path(path).suffix.lower(), (height, width))
    tile = read_checked(source, index)
    if size:
        tile = resize_and_crop(tile, size, size)
    tile = np.ascontiguousarray(tile)
    if encoding == 'raw':
        file = io.BytesIO()
        np.save(file, tile)
        return _Made(file.getvalue(), '.npy', tile.shape[:2])
    if encoding == 'png':
        return _Made(bytes(imagecodecs.png_encode(tile)), '.png', tile.shape[:2])
    return _Made(simplejpeg.encode_jpeg(tile, JPEG_QUALITY, 'RGB', '444'), '.jpg',
                 tile.shape[:2])


def _head(source: Source, settings: list) -> dict:
    """Return what identifies the content of a set of shards."""
    names = [[source.path(i), source.label(i)] for i in range(len(source))]
    digest = hashlib.sha256(json.dumps([settings, names]).encode()).hexdigest()
    return dict(FORMAT, digest=digest, contents=identity(source)['tile_contents'])


def _finished(out: Path, head: dict) -> Shards | None:
    """Return the finished shards of these tiles in a folder, None if there are none."""
    if not (out / INDEX).exists():
        return None
    index = parse_index((out / INDEX).read_bytes(), str(out / INDEX))
    check_same(dict(digest=index.digest, contents=index.contents), head, out,
               f'shards of {len(index.paths)} other tiles, or of other settings')
    return Shards(str(out))


def _resume(out: Path, head: dict) -> list[dict]:
    """Return the journal's lines of whole shards; the journal ends with them afterwards."""
    journal = out / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    if not lines or not lines[0].endswith(b'\n'):
        journal.write_bytes(json.dumps(head).encode() + b'\n')
        return []
    check_same(json.loads(lines[0]), head, out,
               'a part of shards of other tiles, or of other settings')
    found: list[dict] = []
    end = len(lines[0])
    for line in lines[1:]:
        if not line.endswith(b'\n'):
            break
        entry = json.loads(line)
        if entry['shard'] is not None:
            file = out / entry['shard']['name']
            if not file.is_file() or file.stat().st_size != entry['shard']['size']:
                break
        found.append(entry)
        end += len(line)
    os.truncate(journal, end)
    return found


def _finish(source: Source, out: Path, head: dict, lines: list[dict]) -> None:
    rows = [row for line in lines for row in line['rows']]
    if not rows:
        raise UserError('not one tile can be read', where=str(out))
    places, offsets, lengths, checksums, heights, widths = zip(*rows)
    sizes = set(zip(heights, widths))
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    labels = None if source.labels is None else [source.label(i) for i in places]
    write_text(out / INDEX, json.dumps(dict(
        head, height=height, width=width, classes=source.classes,
        skipped=[source.path(i) for line in lines for i in line['skipped']],
        shards=[line['shard'] for line in lines if line['shard'] is not None],
        paths=[source.path(i) for i in places], labels=labels, offsets=offsets, lengths=lengths,
        checksums=checksums)))
    (out / JOURNAL).unlink()
