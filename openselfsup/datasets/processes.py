"""Processes that make batches of views side by side.

Rendering a tile is some twenty short calls into OpenCV, after each of which a thread must get
Python's lock back: two threads render 1.4 times what one does, two processes twice as much,
and they leave the lock to the training loop.

The processes are forked: what they need is there, nothing is imported or sent. Views travel in
slots of memory that all of them share. It has no name, so that no limit on /dev/shm applies and
nothing of it remains, whoever is killed.
"""

import contextlib
import gc
import logging
import math
import mmap
import os
import pickle
import signal
import sys
import traceback
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import Protocol

import numpy as np
import torch

from ..errors import UserError
from .memory import Allocate, Shape, lent
from .tiles import TileDataset

logger = logging.getLogger(__name__)

ATTEMPTS = 2  # processes that a batch may cost


class Make(Protocol):
    """Makes a batch; ``allocate`` says where its views go."""

    def __call__(self, epoch: int, iteration: int, *, allocate: Allocate) -> dict: ...


def can_fork() -> bool:
    """Return whether processes can be forked safely: not on macOS, whose libraries forbid it."""
    return sys.platform == 'linux'


class ViewProcesses:
    """Forked processes that make batches for the threads that ask for them.

    A process that is killed is replaced and its batch made again: it depends on nothing but
    its position, so nothing is lost and nothing changes.

    Args:
        make: makes a batch whose views lie in memory that it is given; not kept alive.
        dataset: the dataset that ``make`` uses; it learns of the unreadable tiles.
        count: the number of processes.
        slots: batches that can be in the making or held by consumers.
        batch_size: the most tiles of a batch.
    """

    def __init__(self, make: Make, dataset: TileDataset, count: int, slots: int, batch_size: int):
        self._make: weakref.WeakMethod[Make] = weakref.WeakMethod(make)
        self._dataset = dataset
        shape = slots, batch_size * dataset.bytes_per_tile
        self._memory = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
        self._free = list(range(slots))
        self._processes: list[_Process] = []
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for _ in range(count):
            self._idle.put(self._start())
        weakref.finalize(self, _stop, self._processes, os.getpid())

    def make_batch(self, epoch: int, iteration: int) -> dict | None:
        """Return a batch whose views are in shared memory, for as long as anybody holds them.

        Returns:
            The batch, or None if consumers hold so many that no slot is free.

        Raises:
            UserError: it cost the lives of two processes.
            Exception: whatever making it raised.
        """
        try:
            slot = self._free.pop()
        except IndexError:
            return None
        memory = lent(self._memory[slot], partial(self._free.append, slot))
        batch, places = self._ask(epoch, iteration, slot)
        batch = {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                 for name, value in batch.items()}
        batch['views'] = [memory[start:start + math.prod(shape)].view(shape).permute(0, 3, 1, 2)
                          for start, shape in places]
        return batch

    def _ask(self, epoch: int, iteration: int, slot: int) -> tuple[dict, list]:
        process = self._idle.get()
        try:
            for _ in range(ATTEMPTS):
                try:
                    answer, corrupt, error, trace = process.ask(epoch, iteration, slot)
                    break
                except (EOFError, ConnectionError):
                    how = process.wait()
                    self._processes.remove(process)
                    logger.warning('a loader process %s while it made batch %d of epoch %d; '
                                   'another one takes its place', how, iteration + 1, epoch + 1)
                    process = self._start()
            else:
                raise UserError(
                    f'each of {ATTEMPTS} loader processes that were to make this batch {how}',
                    where=f'epoch {epoch + 1}, batch {iteration + 1}',
                    expected='enough memory (fewer workers need less) and tiles that can be '
                             'decoded (openselfsup verify finds those that cannot)')
        finally:
            self._idle.put(process)
        self._dataset.report_corrupt(corrupt)
        if error is not None:
            raise error from RuntimeError(f'in a loader process:\n{trace}')
        return answer

    def _start(self) -> '_Process':
        self._processes.append(process := _Process(self._serve))
        return process

    def _serve(self, connection: Connection) -> None:
        """Answer until the other end is closed; runs in the new process."""
        # What this program handles itself (Ctrl-C, a request of Slurm to stop) may reach all of
        # its processes, but one of them decides.
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_IGN)
        gc.freeze()  # what was there before may belong to a GPU, which is not ours to free
        logging.disable()
        torch.set_num_threads(1)
        while True:
            try:
                epoch, iteration, slot = pickle.loads(connection.recv_bytes())
            except EOFError:
                return
            connection.send_bytes(self._answer(epoch, iteration, self._memory[slot]))

    def _answer(self, epoch: int, iteration: int, memory: np.ndarray) -> bytes:
        places: list[tuple[int, Shape]] = []
        used = 0

        def allocate(shape: Shape) -> torch.Tensor:
            nonlocal used
            start, used = used, used + math.prod(shape)
            places.append((start, shape))
            return torch.from_numpy(memory[start:used]).view(shape)

        answer = error = trace = None
        self._dataset.corrupt.clear()
        try:
            make = self._make()
            assert make is not None, 'a copy of the loader lives as long as this process'
            batch = make(epoch, iteration, allocate=allocate)
            answer = {name: value.numpy() if isinstance(value, torch.Tensor) else value
                      for name, value in batch.items() if name != 'views'}, places
        except Exception as caught:
            error, trace = _sendable(caught), traceback.format_exc()
        return pickle.dumps((answer, self._dataset.corrupt, error, trace))


class _Process:
    """A forked process and our end of the pipe to it."""

    def __init__(self, serve: Callable[[Connection], None]):
        self.connection, theirs = Pipe()
        with warnings.catch_warnings():
            # Python warns of locks that other threads hold at this moment. Rendering uses none.
            warnings.simplefilter('ignore', DeprecationWarning)
            self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        status = 1
        try:
            # The other end is ours alone, apart from copies in processes that are forked later:
            # once we are gone the last of them sees its pipe closed, then the one before.
            self.connection.close()
            serve(theirs)
            status = 0
        except BrokenPipeError:  # nobody waits for this batch any more
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def ask(self, *request) -> tuple:
        self.connection.send_bytes(pickle.dumps(request))
        return pickle.loads(self.connection.recv_bytes())

    def wait(self) -> str:
        """Wait for the end of the process and say what it was."""
        self.connection.close()
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # somebody else has waited for it
            return 'ended'
        if code < 0:
            return f'was killed by {signal.Signals(-code).name}'
        return f'ended with status {code}'


def _stop(processes: list[_Process], owner: int) -> None:
    if os.getpid() != owner:  # a copy in a process that was forked later
        return
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)  # it is idle and has nothing to put in order
    for process in processes:
        process.wait()


def _sendable(error: Exception) -> Exception:
    """Return the error, or one with the same words if it cannot travel between processes."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f'{type(error).__name__}: {error}')
