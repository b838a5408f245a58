"""What every command-line tool shares: one sentence for a user's mistake, no traceback."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from ..errors import UserError
from ..values import accepts, describe

SYSTEM_LIBRARIES = ('libGL', 'libgthread', 'libglib')


def run(main: Callable[[], int | None]) -> None:
    """Run ``main`` and leave with its status; a :class:`UserError` is printed, status 2."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    try:
        status = main()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        status = 2
    except ImportError as error:
        if not any(name in str(error) for name in SYSTEM_LIBRARIES):
            raise
        print(f'error: OpenCV misses a system library ({error}): on Debian or Ubuntu, '
              'apt install libgl1 libglib2.0-0; on Fedora, dnf install mesa-libGL glib2',
              file=sys.stderr)
        status = 2
    except BrokenPipeError:  # `tool | head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
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
