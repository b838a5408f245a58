"""What the tests of loader processes ask the system."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def children() -> Callable[..., set[int]]:
    """Return a function: the children of a process, this one by default.

    Each process is asked for its parent. The list that a thread keeps of its children would be
    gone when that thread ends while it is read.
    """
    def find(parent: int | None = None) -> set[int]:
        parent, found = parent or os.getpid(), set()
        for stat in Path('/proc').glob('[0-9]*/stat'):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                fields = stat.read_text().rpartition(')')[2].split()
                if int(fields[1]) == parent:
                    found.add(int(stat.parent.name))
        return found

    return find
