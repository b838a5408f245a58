"""What a set of shards holds: the index beside them.

Shards are plain tar files in the layout of WebDataset: the members ``000000012.jpg`` and, with
labels, ``000000012.cls`` (the label as text) are tile 12. Any program that knows tar reads them.
``index.json`` says where in its shard each tile is, so that a tile is read by its place, and with
which checksums, so that what is damaged is found:

- ``shards``: ``name``, ``size`` in bytes, ``sha256`` and ``tiles`` (their number) of each shard;
- one entry per tile in ``paths`` (of what it was made of), ``labels`` (or null), ``offsets`` and
  ``lengths`` (bytes in the shard), ``checksums`` (CRC-32 of these bytes);
- ``classes``, ``skipped`` (paths of unreadable tiles that were left out), ``height`` and ``width``
  in pixels where all tiles have one size (else null).
"""

import dataclasses
import json

import numpy as np

from ..errors import UserError

INDEX = 'index.json'
FORMAT = dict(format='tile shards', version=1)
_COLUMNS = ('offsets', 'lengths', 'checksums')


@dataclasses.dataclass(frozen=True)
class Shard:
    """One tar file.

    Attributes:
        name: of the file.
        size: in bytes.
        sha256: of its content, as hexadecimal digits.
        tiles: their number.
    """

    name: str
    size: int
    sha256: str
    tiles: int


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """The index of a set of shards, N tiles in all.

    Attributes:
        shards: the shards; tiles are numbered through them.
        paths: N names of what the tiles were made of.
        labels: int64 (N,), or None.
        classes: names of the labels, or None.
        offsets: int64 (N,), where in its shard the bytes of a tile begin.
        lengths: int64 (N,), their number.
        checksums: uint32 (N,), their CRC-32.
        tile_size: (height, width) in pixels if all tiles have the same, else None.
        digest: identifies the paths, labels and settings that it was made of.
        contents: identifies the files that it was made of.
    """

    shards: list[Shard]
    paths: list[str]
    labels: np.ndarray | None
    classes: list[str] | None
    offsets: np.ndarray
    lengths: np.ndarray
    checksums: np.ndarray
    tile_size: tuple[int, int] | None
    digest: str
    contents: str


def parse_index(data: bytes, where: str) -> ShardIndex:
    """Read an index.

    Args:
        data: content of ``index.json``.
        where: its place, for messages.

    Raises:
        UserError: it is damaged, cut off, of another format or version, or does not fit itself.
    """
    try:
        found = json.loads(data.decode('utf-8'))
    except ValueError as error:
        raise UserError(f'damaged or cut off ({error})', where=where,
                        expected='an index written by openselfsup pack --shards') from None
    if not isinstance(found, dict) or {key: found.get(key) for key in FORMAT} != FORMAT:
        raise UserError('another format or version', where=where,
                        expected=', '.join(f'{key} {value}' for key, value in FORMAT.items()))
    try:
        shards = [Shard(**shard) for shard in found['shards']]
        offsets, lengths, checksums = (np.array(found[name], np.int64) for name in _COLUMNS)
        labels = None if found['labels'] is None else np.array(found['labels'], np.int64)
        size = None if found['height'] is None else (found['height'], found['width'])
        index = ShardIndex(shards, found['paths'], labels, found['classes'], offsets, lengths,
                           checksums.astype(np.uint32), size, found['digest'], found['contents'])
        count = sum(shard.tiles for shard in shards)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f'damaged ({error!r})', where=where,
                        expected='an index written by openselfsup pack --shards') from None
    if not count or {len(column) for column in (index.paths, offsets, lengths, checksums,
                                                offsets if labels is None else labels)} != {count}:
        raise UserError(f'its shards have {count} tiles, its columns '
                        f'{len(index.paths)}', where=where, expected='shards packed anew')
    return index
