"""Work on many files at once, in threads."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .headers import Header, TileError, read_header

DISK_THREADS = 16  # more than cores, for what mostly waits for the disk
Item = TypeVar('Item')
Result = TypeVar('Result')


def default_workers() -> int:
    """Return how many threads prepare tiles by default: the cores we may use, 8 at most."""
    cores = (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity')
             else os.cpu_count() or 1)
    return min(cores, 8)


def parallel_map(function: Callable[[Item], Result], items: Sequence[Item],
                 threads: int) -> list[Result | TileError]:
    """Apply ``function`` to every item (paths or indices of tiles) in ``threads`` threads.

    Returns:
        What ``function`` returned, or the TileError that it raised, in the order of the items.
    """
    def apply(block: Sequence[Item]) -> list[Result | TileError]:
        found: list[Result | TileError] = []
        for item in block:
            try:
                found.append(function(item))
            except TileError as error:
                found.append(error)
        return found

    blocks = [items[start:start + 64] for start in range(0, len(items), 64)]
    with ThreadPoolExecutor(threads, 'tiles') as pool:
        return [entry for block in pool.map(apply, blocks) for entry in block]


def read_headers(paths: Sequence[str]) -> list[Header | TileError]:
    """Read all headers."""
    return parallel_map(read_header, paths, DISK_THREADS)
