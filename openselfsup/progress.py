"""A progress bar over items, for work that is no training."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar('Item')
_CONSOLE = Console(stderr=True)


def progress(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield the items under a progress bar; four lines in all where there is no terminal."""
    if _CONSOLE.is_terminal:
        yield from track(items, what, console=_CONSOLE)
        return
    steps = {round(len(items) * k / 4) for k in (1, 2, 3, 4)}
    for i, item in enumerate(items, 1):
        yield item
        if len(items) >= 20 and i in steps:
            _CONSOLE.print(f'{what}: {i} of {len(items)}', highlight=False)
