"""The work directory: who writes into it, what is in it, and how it is held."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from mmengine.config import Config

from .. import distributed
from ..claims import Claim, claimed
from ..errors import UserError
from ..files import write_text
from .config_text import config_text

Result = TypeVar('Result')
LATEST = 'latest.pth'
# What a start that left no checkpoint may have left.
_OF_A_START = ('config.py', 'environment.json', 'metrics.jsonl', 'train.log', 'tensorboard')


@contextlib.contextmanager
def held(work_dir: Path) -> Iterator[Claim | None]:
    """Hold the work directory while a run writes there; rank 0 does so for all ranks.

    Yields:
        The claim on rank 0, None elsewhere.

    Raises:
        UserError: on all ranks, if another process writes there.
    """
    with contextlib.ExitStack() as stack:
        yield on_main(lambda: stack.enter_context(claimed(work_dir, 'pretraining')), share=False)


def on_main(work: Callable[[], Result], share: bool = True) -> Result | None:
    """Let rank 0 do something that all ranks depend on.

    Args:
        work: what to do.
        share: False for a result that is for rank 0 alone; others get None.

    Raises:
        UserError: on all ranks, if rank 0's work raised it.
    """
    result, problem = None, None
    if distributed.is_main():
        try:
            result = work()
        except UserError as error:
            problem = error
    shared, problem = distributed.broadcast_object((result if share else None, problem))
    if problem:
        raise problem
    return shared if share else result


def write_run_files(work_dir: Path, cfg: Config, environment: dict, step: int) -> None:
    """Write what explains the steps from here on: config (can be trained from) and environment.

    ``config.py`` and ``environment.json`` are those of the first step. A run that goes on with
    others writes them beside these, as ``config_from_step_N.py``; files of later steps, which are
    about to be repeated, are removed.

    Args:
        work_dir: the work directory.
        cfg: the config.
        environment: what :func:`~openselfsup.training.environment.describe_environment` returned.
        step: optimiser steps done.
    """
    _write_if_changed(work_dir, 'config', '.py', config_text(cfg), step)
    _write_if_changed(work_dir, 'environment', '.json', json.dumps(environment, indent=2) + '\n',
                      step)


def _write_if_changed(work_dir: Path, stem: str, suffix: str, text: str, step: int) -> None:
    first = work_dir / (stem + suffix)
    written = {int(found.group(1)): path for path in work_dir.glob(f'{stem}_from_step_*{suffix}')
               if (found := re.fullmatch(rf'{stem}_from_step_(\d+)', path.stem))}
    for other in [other for other in written if other >= step]:
        written.pop(other).unlink()
    in_force = written[max(written)] if written else first
    if not step or not first.exists():
        write_text(first, text)
    elif in_force.read_text(encoding='utf-8') != text:
        write_text(work_dir / f'{stem}_from_step_{step}{suffix}', text)


def set_aside(work_dir: Path) -> Path | None:
    """Move what a start without any checkpoint has left, if it counted steps, into a folder.

    Returns:
        The folder, such as ``earlier_1``, or None if there was nothing.
    """
    metrics = work_dir / 'metrics.jsonl'
    if not metrics.exists() or not metrics.stat().st_size:
        return None
    number = next(n for n in range(1, 10_000) if not (work_dir / f'earlier_{n}').exists())
    folder = work_dir / f'earlier_{number}'
    folder.mkdir()
    for name in _OF_A_START:
        if (work_dir / name).exists():
            os.replace(work_dir / name, folder / name)
    return folder


def find_checkpoint(work_dir: Path, resume: str | None) -> Path | None:
    """Return the checkpoint to go on from, or None to start anew.

    Args:
        work_dir: the work directory of the run.
        resume: None (start anew), 'auto' (the newest in the work directory, if any), or
            a path.

    Raises:
        UserError: the directory holds a run already and ``resume`` is None, or the checkpoint of
            another run.
    """
    newest = _newest(work_dir)
    if resume == 'auto':
        return newest
    if newest is not None and resume is None:
        raise UserError('this directory already holds a run', where=str(work_dir),
                        expected='--resume to continue it, or another --work-dir')
    if resume is None:
        return None
    if newest is not None and Path(resume).resolve().parent != work_dir.resolve():
        raise UserError('this directory already holds a run, and the checkpoint is not one of its '
                        'own', where=str(work_dir),
                        expected=f'--resume {newest}, or another --work-dir')
    return Path(resume)


def _newest(work_dir: Path) -> Path | None:
    """Return latest.pth, or without it the epoch_N.pth of the last epoch, if there is one."""
    epochs = {int(found.group(1)): path for path in work_dir.glob('epoch_*.pth')
              if (found := re.fullmatch(r'epoch_(\d+)\.pth', path.name))}
    latest = work_dir / LATEST
    return latest if latest.exists() else epochs[max(epochs)] if epochs else None
