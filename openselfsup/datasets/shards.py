"""Tiles in shards: tar files on a disk or in a bucket; what they are: :mod:`.shard_index`."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError, located
from ..registry import SOURCES
from ..values import Count, Positive
from .decode import decode_tile
from .headers import TileError
from .parallel import default_workers, parallel_map
from .shard_cache import ShardCache
from .shard_index import INDEX, Shard, ShardIndex, parse_index
from .sources import Source

_NPY = b'\x93NUMPY'
ATTEMPTS = 5  # to read a tile from a cache out of which others remove shards


@SOURCES.register_module()
class Shards(Source):
    """The tiles of shards that ``openselfsup pack --shards`` wrote, on a disk or in a bucket.

    Shards of a bucket or web server come whole, ahead of their use, into a cache on the disk that
    all workers, ranks and runs of a host share. Each epoch permutes the shards, cuts them into
    groups of at most ``shuffle_shards`` of even size, and permutes the tiles of each group: two
    tiles of a group may stand anywhere in it, and every shard may meet every other one. The order
    depends on the seed and epoch alone, whatever the place of the shards and of the cache.

    Args:
        url: folder of the shards: a path, ``s3://bucket/path``, ``https://...`` or what else
            fsspec knows.
        labels: False to take no labels.
        shuffle_shards: shards whose tiles are mixed at a time.
        cache: folder for shards that are fetched, best on a disk of this host; by default
            ``openselfsup/shards`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
        cache_gb: room for them in gigabytes; those used longest ago are removed.
        storage_options: how the store is reached, as fsspec takes it, such as
            ``dict(anon=True)`` or ``dict(endpoint_url='http://...')`` for s3. Checkpoints tell
            it: keys belong into the environment (``AWS_ACCESS_KEY_ID``).

    Raises:
        UserError: no shards there, they cannot be reached, files are missing or of another size,
            or a cache that is too small for two groups.
    """

    grouped = True

    def __init__(self, url: str, labels: bool = True, shuffle_shards: Count = 8,
                 cache: str | None = None, cache_gb: Positive = 16.,
                 storage_options: dict | None = None):
        self.url = str(url).removeprefix('file://')
        self.shuffle_shards = shuffle_shards
        self._cache: ShardCache | None = None
        if '://' in self.url:
            self._cache = ShardCache(self.url, storage_options, cache, int(cache_gb * 1e9))
            self._index = parse_index(self._cache.read(INDEX), f'{self.url}/{INDEX}')
            self._check_cache(cache_gb)
        else:
            self._index = _local_index(Path(self.url))
        self.paths, self.tile_size = self._index.paths, self._index.tile_size
        if labels and self._index.labels is not None:
            self.labels, self.classes = self._index.labels, self._index.classes
        self._ends = np.cumsum([shard.tiles for shard in self._index.shards])
        self._order: np.ndarray | None = None
        self._due: list[tuple[int, Shard]] = []

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        """Return tile ``index`` as uint8 array of shape (H, W, 3).

        Raises:
            TileError: its bytes are not those that were packed, or no image.
            UserError: its shard is gone, or cannot be fetched or kept.
        """
        data = self._bytes(index)
        if data[:len(_NPY)].tobytes() == _NPY:
            return np.load(io.BytesIO(data.tobytes()))
        return decode_tile(data, self._where(index))

    def path(self, index: int) -> str:
        return self.paths[index]

    def stamp(self, index: int) -> tuple[int]:
        """Return the checksum of the tile's bytes."""
        return (int(self._index.checksums[index]),)

    def permutation(self, generator: torch.Generator) -> np.ndarray:
        count = len(self._index.shards)
        groups = np.array_split(torch.randperm(count, generator=generator).numpy(),
                                -(-count // self.shuffle_shards))
        order = []
        for group in groups:
            tiles = np.concatenate([np.arange(self._ends[i] - self._index.shards[i].tiles,
                                              self._ends[i]) for i in group])
            order.append(tiles[torch.randperm(len(tiles), generator=generator).numpy()])
        return np.concatenate(order)

    def coming(self, order: np.ndarray, place: int) -> None:
        """Fetch the shards whose tiles are read next, half a group ahead of their use."""
        if self._cache is None:
            return
        if order is not self._order:
            self._order = order
            used, first = np.unique(self._shard_of(order[place:]), return_index=True)
            self._due = [(place + int(first[i]), self._index.shards[used[i]])
                         for i in np.argsort(-first)]  # the next one is the last
        ahead = self.shuffle_shards * len(self) // (2 * len(self._index.shards))
        while self._due and self._due[-1][0] <= place + ahead:
            self._cache.fetch_ahead(self._due.pop()[1])

    def check(self) -> tuple:
        """See that all shards are there and of their size.

        Raises:
            UserError: some are not; they are named. A web server is not asked.
        """
        wrong = self._cache.missing(self._index.shards) if self._cache else [
            shard.name for shard in self._index.shards
            if not (file := Path(self.url, shard.name)).is_file()
            or file.stat().st_size != shard.size]
        if wrong:
            more = ', ...' if len(wrong) > 10 else ''
            raise UserError(f'{len(wrong)} of {len(self._index.shards)} shards are missing or of '
                            f"another size than the index tells: {', '.join(wrong[:10])}{more}",
                            where=self.url, expected='all files that openselfsup pack wrote')
        return ()

    def damaged(self, on_progress: Callable[[int], None] = lambda done: None) -> list[str]:
        """Read all shards and return the paths of the tiles whose bytes have changed.

        Args:
            on_progress: called with the number of tiles read so far.
        """
        def look(index: int) -> None:
            if index % 256 == 0:
                on_progress(index)
            self._bytes(index)

        found = parallel_map(look, range(len(self)), default_workers())
        return [path for path, error in zip(self.paths, found) if isinstance(error, TileError)]

    def _bytes(self, index: int) -> np.ndarray:
        """Return a tile's bytes as they were packed, uint8 (bytes,)."""
        shard = self._index.shards[int(self._shard_of(index))]
        offset, length = int(self._index.offsets[index]), int(self._index.lengths[index])
        fetched_again = False
        for _ in range(ATTEMPTS):
            file = self._cache.get(shard) if self._cache else Path(self.url, shard.name)
            try:
                data = np.fromfile(file, np.uint8, length, offset=offset)
            except OSError as error:
                if self._cache is None:
                    raise UserError(error.strerror or str(error), where=str(file),
                                    expected='shards that stay while they are read') from None
                continue  # removed for another shard just now
            if len(data) == length and zlib.crc32(data.data) == self._index.checksums[index]:
                return data
            if self._cache is None or fetched_again:
                raise TileError('its bytes are not those that were packed',
                                where=self._where(index))
            self._cache.drop(shard)  # this disk spoiled it: it was right when it came
            fetched_again = True
        raise UserError(f'{shard.name} cannot be kept or read', where=str(self._cache),
                        expected='a cache folder on a sound disk, with room for the shards of '
                                 'all runs that share it')

    def _where(self, index: int) -> str:
        shard = self._index.shards[int(self._shard_of(index))]
        return f'{self.paths[index]} (in {self.url}/{shard.name})'

    def _shard_of(self, index: int | np.ndarray) -> np.ndarray:
        return np.searchsorted(self._ends, index, 'right')

    def _check_cache(self, cache_gb: float) -> None:
        sizes = sorted((shard.size for shard in self._index.shards), reverse=True)
        needed = sum(sizes[:2 * self.shuffle_shards])
        if needed > cache_gb * 1e9:
            raise UserError(f'{cache_gb:g} GB do not hold two groups of {self.shuffle_shards} '
                            'shards', where='source.cache_gb',
                            expected=f'at least {needed / 1e9:.3g}, or a smaller shuffle_shards')


def _local_index(root: Path) -> ShardIndex:
    if not (root / INDEX).is_file():
        raise UserError('no shards here: there is no ' + INDEX, where=located(root),
                        expected='a folder written by openselfsup pack --shards (which goes on '
                                 'where it was stopped)')
    return parse_index((root / INDEX).read_bytes(), str(root / INDEX))
