"""What a process keeps of slides: open files and decoded native tiles, both bounded."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Bounded:
    """The things asked for last, up to a sum of their sizes.

    A forked process begins with none. The thing asked for last is kept in any case. Threads that
    ask for one thing at once may make it twice.

    Args:
        limit: the sum of sizes that is kept.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        """Keep nothing."""
        self._owner, self._lock, self._used = os.getpid(), threading.Lock(), 0
        self._held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any],
            size: Callable[[Any], int] = lambda made: 1) -> Any:
        """Return what ``key`` stands for, made by ``make`` unless it is kept.

        Args:
            key: names the thing.
            make: makes it.
            size: of what was made.
        """
        if os.getpid() != self._owner:  # the lock may be held by a thread that is not here
            self.clear()
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
        made = make()
        with self._lock:
            if key not in self._held:
                self._held[key] = made, size(made)
                self._used += self._held[key][1]
                while self._used > self.limit and len(self._held) > 1:
                    self._used -= self._held.popitem(last=False)[1][1]
        return made

    def forget(self, key: Hashable) -> None:
        """Keep a thing no longer."""
        with self._lock:
            if key in self._held:
                self._used -= self._held.pop(key)[1]

    def __len__(self) -> int:
        return len(self._held)


class OpenFile:
    """A file open for reading at any place, by several threads; closed once nobody holds it."""

    def __init__(self, path: str):
        self._number = os.open(path, os.O_RDONLY | getattr(os, 'O_BINARY', 0))
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._number)

    def read(self, start: int, count: int) -> bytes:
        """Return at most ``count`` bytes from place ``start``."""
        if hasattr(os, 'pread'):
            return os.pread(self._number, count, start)
        with self._lock:  # Windows
            os.lseek(self._number, start, os.SEEK_SET)
            return os.read(self._number, count)


FILES = Bounded(32)  # open files of a process
PIXELS = Bounded(64 * 2 ** 20)  # bytes of its decoded native tiles
