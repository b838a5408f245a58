"""Writing a run's checkpoints, in the background where the run can go on meanwhile.

The state is copied, which takes as long as the memory needs: on a GPU it is copied into page-locked
memory by the device's own queue, behind the step that made it. The copy is written in a thread.
"""

import contextlib
import copy
import logging
import os
import shutil
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoints, distributed
from ..errors import UserError
from ..files import NotWritten, link
from .work_dir import LATEST

FEW_ATTEMPTS = 3  # to write the first checkpoint of a run


class Saver:
    """Writes checkpoints into a work directory, one at a time.

    Args:
        work_dir: the work directory.
        logger: is told of what could not be written.

    Attributes:
        last: path of the last checkpoint that was written, or None.
        failed: attempts in a row that have failed since.
    """

    def __init__(self, work_dir: Path, logger: logging.Logger):
        self._work_dir, self._logger = work_dir, logger
        self.last: str | None = None
        self.failed = 0
        self._thread: ThreadPoolExecutor | None = None
        self._writing: tuple[Future[None], Path, Callable[[], None]] | None = None
        self._latest = False  # whether what is being written is latest.pth

    def save(self, state: dict[str, Any], name: str, must: bool = False, background: bool = False,
             written: Callable[[], None] = lambda: None, parts: bool = False,
             latest: bool = True) -> bool:
        """Write a checkpoint.

        Args:
            state: tensors and plain types.
            name: file in the work directory.
            must: whether it is the run's last chance to save.
            background: write it while the run goes on. The first checkpoint is waited for, so
                that a run that cannot save is stopped early. ``latest.pth`` alone is not begun
                anew while another one is being written.
            written: called on rank 0, from the thread of the caller, once it is there.
            parts: whether each rank writes its part into a folder, never in the background. All
                ranks call it then, and learn the same.
            latest: whether ``latest.pth`` is to be it, too.

        Returns:
            Whether it was written or is under way.

        Raises:
            UserError: it could not be written, and it was the last chance or the third attempt
                of a run that has no checkpoint at all.
        """
        self.settle()
        if self._writing and self._latest and background and name == LATEST:
            return True
        self.settle(wait=True)
        path = self._work_dir / name
        if background and not parts and self.last is not None:
            self._thread = self._thread or ThreadPoolExecutor(1, 'checkpoint')
            copied, ready = copied_state(state)
            future = self._thread.submit(_write, copied, path, latest, ready)
            self._writing, self._latest = (future, path, written), latest
            return True
        try:
            (_write_parts if parts else _write)(state, path, latest)
        except NotWritten as error:
            return self._tell_failed(error, must)
        self._succeed(path, written)
        return True

    def settle(self, wait: bool = False) -> bool:
        """Learn what became of the checkpoint that is being written.

        Args:
            wait: until it is written, or could not be.

        Returns:
            Whether it is there, as it is where none was under way.
        """
        if self._writing is None or not wait and not self._writing[0].done():
            return self._writing is None
        (future, path, written), self._writing = self._writing, None
        try:
            future.result()
        except NotWritten as error:
            return self._tell_failed(error, must=False)
        self._succeed(path, written)
        return True

    def _succeed(self, path: Path, written: Callable[[], None]) -> None:
        self.last, self.failed = str(path), 0
        if distributed.is_main():
            written()
            remove_unnamed(path.parent)

    def _tell_failed(self, error: NotWritten, must: bool) -> bool:
        self.failed += 1
        if must or self.last is None and self.failed >= FEW_ATTEMPTS:
            raise UserError(f'{error}; the last good checkpoint is {self.last}',
                            expected='a work directory with room for checkpoints') from error
        if distributed.is_main():
            self._logger.error('%s (attempt %d); training goes on, the last good checkpoint is %s',
                               error, self.failed, self.last)
        return False


def _write(state: dict[str, Any], path: Path, latest: bool,
           ready: Callable[[], None] = lambda: None) -> None:
    ready()
    checkpoints.save(state, path)
    if latest and path.name != LATEST:
        link(path, path.with_name(LATEST))


def _write_parts(state: dict[str, Any], path: Path, latest: bool) -> None:
    from ..checkpoints.parts import write_parts  # takes seconds
    write_parts(state, list(dict.fromkeys([path, *([path.with_name(LATEST)] if latest else [])])))


def remove_unnamed(work_dir: Path) -> None:
    """Remove folders of parts whose last name, a link, is now that of another checkpoint."""
    with contextlib.suppress(OSError):
        named = {Path(os.readlink(path)).name for path in work_dir.iterdir() if path.is_symlink()}
        for folder in work_dir.glob('step_*.dcp'):
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)


def copied_state(state: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], None]]:
    """Copy a state into memory of the host that nobody else writes.

    Args:
        state: tensors and plain types, nested in dicts, lists, tuples and sets.

    Returns:
        The copy, in which tensors that are one are one again; and what waits, on whatever thread,
        until copies from a GPU have arrived.
    """
    known: dict[Hashable, Tensor] = {}
    events: dict[torch.device, torch.cuda.Event] = {}

    def of_tensor(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape,
               tensor.stride(), tensor.dtype, tensor.device)
        if key not in known or not tensor.numel():
            if tensor.is_cuda:
                known[key] = torch.empty_like(tensor, device='cpu', pin_memory=True).copy_(
                    tensor, non_blocking=True)
                events.setdefault(tensor.device, torch.cuda.Event())
            else:
                known[key] = tensor.cpu().clone()
        return known[key]

    def of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return of_tensor(value)
        if isinstance(value, dict):
            twin = copy.copy(value)  # with what torch attaches to a module's state
            for key, item in value.items():
                twin[key] = of(item)
            return twin
        if type(value) in (list, tuple):
            return type(value)(of(item) for item in value)
        return copy.copy(value)

    copied = of(state)
    for device, event in events.items():
        event.record(torch.cuda.current_stream(device))

    def wait() -> None:
        for event in events.values():
            event.synchronize()

    return copied, wait
