"""What every command-line tool shares: one sentence for a user's mistake, no traceback."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from ..errors import UserError
from ..files import reason
from ..values import accepts, describe
from .tell import tell

SYSTEM_LIBRARIES = ('libGL', 'libgthread', 'libglib')
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(main: Callable[[], int | None]) -> None:
    """Run ``main`` and leave with its status.

    What a user can mend is told in one sentence, status 2: a :class:`UserError`, and what the
    system says of a file that cannot be read or written.
    """
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    try:
        status = main()
    except UserError as error:
        tell(str(error))
        status = 2
    except ImportError as error:
        if not any(name in str(error) for name in SYSTEM_LIBRARIES):
            raise
        tell(f'OpenCV misses a system library ({error}): on Debian or Ubuntu, '
             'apt install libgl1 libglib2.0-0; on Fedora, dnf install mesa-libGL glib2')
        status = 2
    except BrokenPipeError:  # `tool | head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:  # a mistake of our own
            raise
        tell(': '.join(str(part) for part in (error.filename, reason(error)) if part is not None))
        status = 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    sys.exit(status)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the positional ``config`` and ``--cfg-options`` to a tool's arguments."""
    parser.add_argument('config', help='config file, e.g. configs/demo/plm_r18.py')
    add_overrides(parser, 'override single fields, e.g. optimizer.lr=0.01 epochs=5')


def add_overrides(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--cfg-options``: it takes KEY=VALUE only, and may be given several times."""
    parser.add_argument('--cfg-options', nargs='+', action='extend', default=[], type=_pair,
                        metavar='KEY=VALUE', help=what)


def checked(annotation: Any) -> Callable[[str], int | float]:
    """Return what argparse takes as the ``type`` of a number, such as ``checked(Count)``.

    Args:
        annotation: of :mod:`openselfsup.values`: its type and its range.
    """
    def parse(text: str) -> int | float:
        for kind in (int, float):
            try:
                value = kind(text)
            except ValueError:
                continue
            if accepts(value, annotation):
                return value
            break
        raise argparse.ArgumentTypeError(f'must be {describe(annotation)}, not {text}')
    return parse


def _pair(word: str) -> str:
    if '=' not in word:  # an option that takes several words takes a CONFIG behind them too
        raise argparse.ArgumentTypeError(f"'{word}' is not of the form KEY=VALUE; CONFIG comes "
                                         'before --cfg-options')
    return word
