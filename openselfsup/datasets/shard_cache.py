"""Shards of a bucket or web server on a disk of this host.

A shard is fetched by whoever needs it first, be it a thread of a rank or a worker process, under
a lock of its own; the others wait for it. It is checked against the index and takes its name,
which is its checksum, when it is whole: what lies in the cache is right and never stale, whatever
runs share the folder. Nothing is held open: shards may be removed at any time.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

from ..errors import UserError
from ..files import cache_folder, reason
from .shard_index import Shard

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: two processes may fetch one shard at once
    fcntl = None

logger = logging.getLogger(__name__)
BLOCK = 1 << 25  # bytes of one request
THREADS = 4  # shards that a rank fetches ahead at a time
RETRIES = 5  # times that a request is repeated
DELAY = 1.0  # seconds before the first repetition, doubled for each further one
TOUCH = 10.0  # seconds between two notes that a shard is in use
ABANDONED = 3600.0  # seconds after which nobody writes a part any more


class ShardCache:
    """Fetches shards into a folder of bounded size.

    Args:
        url: where the shards are, as fsspec knows it.
        storage_options: for fsspec.
        folder: of the cache; None takes that of the user.
        limit: bytes that the folder may hold.

    Raises:
        UserError: no such kind of store, or a package that it needs is missing.
    """

    def __init__(self, url: str, storage_options: dict | None, folder: str | None, limit: int):
        self.url, self._options, self._limit = url.rstrip('/'), storage_options or {}, limit
        self.folder = Path(folder or cache_folder('shards'))
        self._owner = 0
        self._connect()

    def __str__(self) -> str:
        return str(self.folder)

    def _connect(self) -> None:
        """Make what belongs to this process: a connection and the threads that fetch ahead."""
        import fsspec
        try:
            self._store, self._root = fsspec.core.url_to_fs(self.url, skip_instance_cache=True,
                                                            **self._options)
        except ImportError as error:
            raise UserError(str(error), where=self.url, expected=(
                "pip install 'openselfsup-pathology[s3]'" if self.url.startswith('s3') else
                'the package that this kind of store needs')) from None
        except (ValueError, TypeError) as error:
            raise UserError(str(error), where=self.url,
                            expected='a path, s3://..., https://... or what else fsspec knows, and '
                                     'storage_options that it takes') from None
        self._owner = os.getpid()
        self._todo: SimpleQueue[Shard] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def read(self, name: str) -> bytes:
        """Return the content of a whole file.

        Raises:
            UserError: it is not there or cannot be read.
        """
        return self._request(name, None, None)

    def missing(self, shards: Sequence[Shard]) -> list[str]:
        """Return the names of shards that are not there or of another size.

        Nothing is found where the store cannot list files, as web servers.
        """
        if self.url.startswith('http'):
            return []
        found = self._insist('', lambda: self._store.ls(self._root, detail=True, refresh=True))
        sizes = {entry['name'].rsplit('/', 1)[-1]: entry['size'] for entry in found}
        return [shard.name for shard in shards if sizes.get(shard.name) != shard.size]

    def get(self, shard: Shard) -> Path:
        """Return the file of a shard, fetched first if need be.

        Raises:
            UserError: it cannot be fetched, is not what the index tells, or cannot be written.
        """
        file = self._file(shard)
        if not self._note_use(file, shard):
            with self._held(f'{shard.sha256}.lock') as alone:
                if not self._note_use(file, shard):  # nobody fetched it meanwhile
                    for left in file.parent.glob(f'{shard.sha256}.*.part') if alone else ():
                        left.unlink(missing_ok=True)  # by somebody who was killed
                    self._fetch(shard, file)
        return file

    def drop(self, shard: Shard) -> None:
        """Remove a shard that this disk has spoiled."""
        logger.warning('%s in %s is not as it came: it is fetched again', shard.name, self)
        with contextlib.suppress(OSError):
            self._file(shard).unlink()

    def fetch_ahead(self, shard: Shard) -> None:
        """Fetch a shard in a thread; what fails is tried again, and told, where it is needed."""
        if self._owner != os.getpid():
            self._connect()
        self._todo.put(shard)
        if len(self._threads) < THREADS:  # daemons: nobody waits for them in the end
            self._threads.append(threading.Thread(target=self._work, name='shards', daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while True:
            with contextlib.suppress(UserError):
                self.get(self._todo.get())

    def _file(self, shard: Shard) -> Path:
        return self.folder / f'{shard.sha256}.tar'

    @staticmethod
    def _note_use(file: Path, shard: Shard) -> bool:
        """Return whether a shard is there; its time of change tells when it was used last."""
        try:
            found = file.stat()
            if found.st_size != shard.size:
                return False
        except OSError:
            return False
        if time.time() - found.st_mtime > TOUCH:
            with contextlib.suppress(OSError):  # of another user, or removed just now
                os.utime(file)
        return True

    def _fetch(self, shard: Shard, file: Path) -> None:
        problem = ''
        for _ in range(2):
            part = file.with_suffix(f'.{secrets.token_hex(4)}.part')
            try:
                if self._write(shard, part) == shard.sha256:
                    with self._held('room.lock'):  # who counts finds it once, as part or whole
                        os.replace(part, file)
                    return
                problem = 'what came has another checksum than the index tells'
                part.unlink()
            except FileNotFoundError:  # somebody removed the folder
                problem = f'{self.folder} was removed meanwhile'
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                with contextlib.suppress(OSError):
                    part.unlink()
                raise UserError(f'no shard can be kept here: {reason(error)}',
                                where=str(self.folder),
                                expected='a cache folder on a disk that can be written, with '
                                         'room') from None
            logger.warning('%s/%s: %s', self.url, shard.name, problem)
        raise UserError(f'{problem}, twice', where=f'{self.url}/{shard.name}',
                        expected='the files that openselfsup pack wrote together')

    def _write(self, shard: Shard, part: Path) -> str:
        """Write a shard into a file and return the checksum of what came."""
        self._make_room(part, shard.size)
        digest = hashlib.sha256()
        with open(part, 'r+b') as out:
            while (start := out.tell()) < shard.size:
                end = min(start + BLOCK, shard.size)
                block = self._request(shard.name, start, end)
                if start == 0 and len(block) == shard.size:  # from a server that has no ranges
                    end = shard.size
                if len(block) != end - start:
                    raise UserError(f'{start + len(block):,} bytes came',
                                    where=f'{self.url}/{shard.name}',
                                    expected=f'{shard.size:,} bytes, as the index tells')
                digest.update(block)
                out.write(block)
        return digest.hexdigest()

    def _request(self, name: str, start: int | None, end: int | None) -> bytes:
        path = f'{self._root}/{name}'
        return self._insist(name, lambda: self._store.cat_file(path, start=start,
                                                               end=end))

    def _insist(self, name: str, ask: Any) -> Any:
        """Ask the store, again and again if need be."""
        if self._owner != os.getpid():  # forked: connections are not shared
            self._connect()
        where = f'{self.url}/{name}'
        for attempt in range(RETRIES + 1):
            try:
                return ask()
            except FileNotFoundError:
                raise UserError('is not there', where=where,
                                expected='what openselfsup pack --shards wrote') from None
            except Exception as error:  # stores raise what their libraries have
                if _refused(error):
                    raise UserError(f'the store refuses access ({_words(error)})', where=where,
                                    expected='credentials in the environment, or '
                                             'storage_options=dict(anon=True)') from None
                last = error
            if attempt < RETRIES:
                logger.warning('%s: %s; asked again', where, _words(last))
                time.sleep(DELAY * 2 ** attempt)
        raise UserError(f'cannot be fetched after {RETRIES + 1} attempts ({_words(last)})',
                        where=where, expected='a store that answers; --resume goes on from the '
                                              'last checkpoint')

    def _make_room(self, part: Path, size: int) -> None:
        """Remove the shards used longest ago until another one fits, and take its place."""
        with self._held('room.lock'):
            held, now = [], time.time()
            for file in [*self.folder.glob('*.tar'), *self.folder.glob('*.part')]:
                with contextlib.suppress(OSError):
                    found = file.stat()
                    if file.suffix == '.part' and now - found.st_mtime > ABANDONED:
                        file.unlink()
                    else:
                        held.append((found.st_mtime, found.st_size, file))
            excess = sum(bytes_ for _, bytes_, _ in held) + size - self._limit
            for _, bytes_, file in sorted(held):
                if excess > 0 and file.suffix == '.tar':
                    with contextlib.suppress(OSError):
                        file.unlink()
                    excess -= bytes_
            with open(part, 'wb') as out:
                out.truncate(size)

    @contextlib.contextmanager
    def _held(self, name: str) -> Iterator[bool]:
        """Hold a lock of the cache, against threads and processes alike.

        Yields:
            Whether it is held: some file systems have no locks. There work may be done twice.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(self.folder / name, 'ab')
        except OSError as error:
            raise UserError(f'no shard can be kept here: {reason(error)}', where=str(self.folder),
                            expected='a cache folder that can be written') from None
        with file:
            locked = False
            if fcntl:
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                    locked = True
            try:
                yield locked
            finally:
                if fcntl and locked:  # at once: a process forked meanwhile has a copy of this file
                    fcntl.flock(file, fcntl.LOCK_UN)


def _refused(error: Exception) -> bool:
    return (isinstance(error, PermissionError) or getattr(error, 'status', None) in (401, 403)
            or type(error).__name__ in ('NoCredentialsError', 'PartialCredentialsError'))


def _words(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.strip(': ')
