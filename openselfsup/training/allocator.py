"""How the C library treats memory that a training step on a CPU frees."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt(3)


def keep_freed_memory() -> bool:
    """Let this process keep large blocks of memory that it frees, for its next step.

    glibc gives blocks of more than 32 MB back at once, and the system clears every page that it
    hands out again: a fifth of a ResNet-18's step. The process stays at the size of its largest
    step.

    Returns:
        Whether there is a C library that can do it: glibc, on Linux.
    """
    if sys.platform != 'linux':
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    # No block has a mapping of its own, and the heap never shrinks.
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
