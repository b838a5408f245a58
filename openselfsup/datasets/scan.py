"""Looking at many files at once."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .headers import Header, TileError, read_header

Item = TypeVar('Item')
Found = TypeVar('Found')
SHOWN = 10


def default_workers() -> int:
    """Return how many threads prepare tiles by default: the cores we may use, 8 at most."""
    cores = (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity')
             else os.cpu_count() or 1)
    return min(cores, 8)


def scan(items: Sequence[Item], look: Callable[[Item], Found],
         threads: int) -> list[Found | TileError]:
    """Apply ``look`` to every item (paths or indices of tiles) in ``threads`` threads.

    Returns:
        What ``look`` returned, or the TileError that it raised, in the order of the items.
    """
    def look_at(block: Sequence[Item]) -> list[Found | TileError]:
        found: list[Found | TileError] = []
        for item in block:
            try:
                found.append(look(item))
            except TileError as error:
                found.append(error)
        return found

    blocks = [items[start:start + 64] for start in range(0, len(items), 64)]
    with ThreadPoolExecutor(threads, 'scan') as pool:
        return [entry for block in pool.map(look_at, blocks) for entry in block]


def scan_headers(paths: Sequence[str]) -> list[Header | TileError]:
    """Read all headers; more threads than cores, because they mostly wait for the disk."""
    return scan(paths, read_header, threads=16)


def listed(what: str, problems: Iterable[object]) -> str:
    """Return ``what`` followed by the first ten problems, a line each."""
    problems = list(problems)
    lines = [str(problem) for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f'... and {len(problems) - SHOWN} more')
    return f'{what}:\n  ' + '\n  '.join(lines)
