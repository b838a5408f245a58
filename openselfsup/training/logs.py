"""Where the lines of a run go: the console, and a file that a full disk does not break."""

import contextlib
import logging
from pathlib import Path

from rich.console import Console

from .. import distributed

CONSOLE = Console()


class _ConsoleHandler(logging.Handler):
    """Prints through rich's console, so that lines do not tear a live progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        # Records of progress are a live line on a terminal, and printed elsewhere.
        if CONSOLE.is_terminal and getattr(record, 'live', False):
            return
        style = 'bold red' if record.levelno >= logging.WARNING else None
        CONSOLE.print(self.format(record), style=style, markup=False, highlight=False,
                      soft_wrap=True)


class LogFile(logging.FileHandler):
    """A log file on which a full disk is told once, not with a traceback a line."""

    failing = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; what finds no room stays in the buffer for the next time."""
        self.failed = False
        super().emit(record)
        self.failing = self.failed

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Tell the other handlers, unless they know."""
        self.failed = True
        if not self.failing:
            self.failing = True
            logging.getLogger(record.name).warning(
                '%s could not be written; the run goes on', self.baseFilename)

    def close(self) -> None:
        """Close the file; what never found room is lost."""
        with contextlib.suppress(OSError):
            super().close()


def build_logger(file: Path | None = None, level: str = 'INFO') -> logging.Logger:
    """Return the logger 'openselfsup': console and file on rank 0, warnings elsewhere.

    Args:
        file: takes every line of rank 0, with its time; None for the console alone.
        level: the least that is told.
    """
    logger = logging.getLogger('openselfsup')
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    logger.setLevel(level)
    console = _ConsoleHandler()
    logger.addHandler(console)
    if not distributed.is_main():
        console.setLevel(logging.WARNING)
        console.setFormatter(logging.Formatter(f'[rank {distributed.rank()}] %(message)s'))
    elif file is not None:
        handler = LogFile(file, encoding='utf-8', errors='backslashreplace')
        handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s',
                                               '%Y-%m-%d %H:%M:%S'))
        logger.addHandler(handler)
    return logger
