"""Leaving a command: one sentence for a user's mistake, no traceback."""

import errno
import io
import os
import sys
from collections.abc import Callable

from ..errors import UserError
from ..files import reason
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
