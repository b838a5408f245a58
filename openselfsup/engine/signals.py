"""Signals that end a run: it takes its step to the end, saves and leaves."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def caught(ask_to_stop: Callable[[int], None]) -> Iterator[None]:
    """Hand SIGTERM (schedulers) and the first Ctrl-C to ``ask_to_stop``; a second Ctrl-C ends.

    Python hands signals to the main thread only: a run in another one, as in a notebook's server,
    is stopped by its own program.

    Args:
        ask_to_stop: called with the number of the signal.
    """
    def handle(number: int, frame: object) -> None:
        ask_to_stop(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handle)
                for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
