"""Work that is done in a process of its own, whose memory other work leaves alone."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection

from .timing import peak_memory


class WorkerProcess:
    """Does the work that ``build`` returns, each time it is called, in another process.

    Args:
        build: returns the work; it is sent to that process and called there.
    """

    def __init__(self, build: Callable[[], Callable[[], object]]):
        context = multiprocessing.get_context('spawn')
        self._connection, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, build), daemon=True).start()
        theirs.close()

    def __call__(self) -> None:
        self._request('work')

    def peak_memory(self) -> float:
        """Return what :func:`.timing.peak_memory` finds there."""
        return self._request('peak_memory')

    def _request(self, what: str) -> float | None:
        self._connection.send(what)
        return self._connection.recv()


def _serve(connection: Connection, build: Callable[[], Callable[[], object]]) -> None:
    work = build()
    while True:
        try:
            what = connection.recv()
        except EOFError:
            return
        if what == 'work':
            work()
        connection.send(peak_memory(work) if what == 'peak_memory' else None)
