"""What tests of all rooms need: repeatable examples, scripts, weights, a port."""

import contextlib
import io
import runpy
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

REPO = Path(__file__).resolve().parents[1]

settings.register_profile('repeatable', deadline=None, derandomize=True)
settings.load_profile('repeatable')


class Finished(NamedTuple):
    """What a script left with and printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope='session')
def tool() -> Callable[..., Finished]:
    """Run a script as the main program, but in this process: importing torch takes seconds.

    Each script runs in a process of its own in some test too, most of them in
    tests/cli/test_names_that_are_not_utf8.py.
    """
    def run(script: str, *arguments: object, cwd: Path = REPO) -> Finished:
        out, err = io.StringIO(), io.StringIO()
        with (pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out),
              contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left):
            patch.chdir(cwd)
            patch.setattr(sys, 'argv', [str(REPO / script), *map(str, arguments)])
            patch.setattr(sys, 'path', list(sys.path))
            runpy.run_path(str(REPO / script), run_name='__main__')
        return Finished(left.value.code or 0, out.getvalue(), err.getvalue())
    return run


@pytest.fixture(scope='session')
def weights(tmp_path_factory) -> Path:
    """Weights of a ResNet-18 as torchvision saves them."""
    import torch
    import torchvision
    path = tmp_path_factory.mktemp('weights') / 'r18.pth'
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=8).state_dict(), path)
    return path


@pytest.fixture
def free_port() -> str:
    """A port where processes can meet."""
    with socket.socket() as free:
        free.bind(('', 0))
        return str(free.getsockname()[1])
