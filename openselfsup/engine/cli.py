"""What every command-line tool shares: one sentence for a user's mistake, no traceback."""

import argparse
import os
import sys
from collections.abc import Callable

from ..errors import UserError


def run(main: Callable[[], int | None]) -> None:
    """Run ``main`` and leave with its status; a :class:`UserError` is printed, status 2."""
    try:
        status = main()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
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
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='override single fields, e.g. optimizer.lr=0.01 epochs=5')
