import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


class Finished(NamedTuple):
    """What a tool left with and printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def tool(monkeypatch, capsys) -> Callable[..., Finished]:
    """Run a tool as the main program, but in this process: importing torch takes seconds."""
    def run(name: str, *arguments: object) -> Finished:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(TOOLS / name), run_name='__main__')
        return Finished(left.value.code or 0, *capsys.readouterr())
    return run
