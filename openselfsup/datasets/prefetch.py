"""Made ahead: what a loop needs next is made in threads while it is busy."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
Made = TypeVar('Made')


def prefetch(make: Callable[[Item], Made], todo: Iterable[Item], workers: int, ahead: int,
             name: str = 'prefetch', initializer: Callable[[], None] | None = None,
             waited: Callable[[float], None] | None = None) -> Iterator[Made]:
    """Yield ``make(item)`` of every item in order, made in threads before it is asked for.

    What ``make`` raises is raised where its item is due. Threads end with the iterator, also
    when it is closed or dropped early.

    Args:
        make: called in a thread.
        todo: the items.
        workers: threads, at least 1.
        ahead: items under way at a time, the one that is due included.
        name: of the threads.
        initializer: called first in each thread.
        waited: is told the seconds that the consumer waited for each item.
    """
    def take() -> Made:
        start = time.perf_counter()
        made = waiting.popleft().result()
        if waited is not None:
            waited(time.perf_counter() - start)
        return made

    pool = ThreadPoolExecutor(workers, name, initializer)
    waiting: deque[Future] = deque()
    try:
        for item in todo:
            waiting.append(pool.submit(make, item))
            if len(waiting) >= ahead:
                yield take()
        while waiting:
            yield take()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
