"""Running a published command as the command of ours that it stands for."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..shipped import ROOT
from .main import execute
from .run import run
from .tell import is_first

if TYPE_CHECKING:
    from ..lineage.commands import Command

Translate = Callable[[Sequence[str]], 'Command']


def published(translate: Translate) -> None:
    """Run what a published script stands for, say what that is, and leave with its status.

    Args:
        translate: makes a command of ours of the arguments of this process.
    """
    run(lambda: _run(translate(sys.argv[1:])))


def _run(command: 'Command') -> int | None:
    os.environ.update(command.environment)
    if is_first():
        for note in command.notes:
            print(note)
        print(f'this is: openselfsup {command.name} {shlex.join(command.words)}', flush=True)
    words = launcher(command)
    if words:
        os.execv(words[0], words)
    return execute(command.name, command.words, prog=f'openselfsup {command.name}')


def launcher(command: 'Command') -> list[str]:
    """Return the command line that starts a process for each GPU; empty where one will do."""
    if not command.one_process_per_gpu or 'LOCAL_RANK' in os.environ:
        return []
    import torch
    gpus = torch.cuda.device_count()
    if gpus < 2:
        return []
    return [sys.executable, '-m', 'torch.distributed.run', '--standalone',
            f'--nproc_per_node={gpus}', str(ROOT / f'tools/{command.name}.py'), *command.words]
