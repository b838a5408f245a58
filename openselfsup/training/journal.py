"""Files that watch a run: they grow by whole pieces and never end it, however full the disk."""

import io
import itertools
import logging
import os
import socket
import time
from pathlib import Path

from ..files import reason

_numbers = itertools.count()


class Journal:
    """A file that grows by whole pieces; what finds no room waits in memory for it.

    Args:
        path: the file; it and its folder are made with the first piece.
        logger: is told once when pieces cannot be written, and once when they can again.
    """

    def __init__(self, path: Path, logger: logging.Logger):
        self.path, self.logger = path, logger
        self.waiting = b''
        self.failing = False

    def add(self, piece: bytes) -> None:
        """Append a piece, and before it those that wait."""
        self.waiting += piece
        try:
            _append(self.path, self.waiting)
        except OSError as error:
            if not self.failing:
                self.failing = True
                self.logger.warning(
                    '%s could not be written: %s; training goes on, and what belongs there is '
                    'written as soon as it can be', self.path, reason(error))
            return
        self.waiting = b''
        if self.failing:
            self.failing = False
            self.logger.warning('%s is written again, nothing is missing', self.path)


def _append(path: Path, data: bytes) -> None:
    """Append all of ``data`` or nothing.

    Raises:
        OSError: the file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'ab', buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest):]
        except OSError:
            file.truncate(end)
            raise


class Events(Journal):
    """TensorBoard's events of a run.

    TensorBoard's own writer works in a thread that a full disk ends for good.

    Args:
        folder: where TensorBoard looks for events.
        step: events of later steps, which a resumed run repeats, do not count.
        logger: see :class:`Journal`.
    """

    def __init__(self, folder: Path, step: int, logger: logging.Logger):
        # Imported late: TensorBoard takes a while.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        now = time.time()
        super().__init__(folder / f'events.out.tfevents.{now:010.0f}.{socket.gethostname()}.'
                                  f'{os.getpid()}.{next(_numbers)}', logger)
        self.add(_record(Event(wall_time=now, file_version='brain.Event:2'))
                 + _record(Event(wall_time=now, step=step,
                                 session_log=SessionLog(status=SessionLog.START))))

    def add_scalars(self, values: dict[str, float], step: int) -> None:
        """Append scalars of a step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import scalar
        self.add(b''.join(_record(Event(wall_time=time.time(), step=step,
                                        summary=scalar(name, value)))
                          for name, value in values.items()))


def _record(event) -> bytes:
    """Return an event as TensorBoard frames it: length, checksums, content."""
    from tensorboard.summary.writer.record_writer import RecordWriter
    out = io.BytesIO()
    RecordWriter(out).write(event.SerializeToString())
    return out.getvalue()
