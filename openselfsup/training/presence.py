"""Who of several processes is still there, and what each does: a run that hangs ends by name.

An exchange waits for ranks that will never come: one that the system has stopped, whose host is
cut off, whose disk does not answer. So each rank tells every few seconds what it does, by a thread,
through the store in which the ranks have met. A rank whose step does not end looks at what the
others have told, says who is missing, and leaves, so that a launcher can start all of them again.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import torch.distributed as dist

from .. import distributed
from ..errors import UserError

BEAT = 3.0  # seconds between two signs of life
_EXCHANGES = ('gloo', 'NCCL', 'TCPStore')  # who says that one has failed
HANGS = 75  # exit status, "try again" of sysexits.h


class Presence:
    """Tells what this rank does, and watches that its steps end.

    Args:
        store: a connection of its own to the store of all ranks.
        patience: seconds that a step may take.
        tell: prints the sentence with which the run ends.
    """

    def __init__(self, store: dist.Store, patience: float, tell: Callable[[str], object]):
        self.store, self.patience, self.tell = store, patience, tell
        self.rank, self.world = distributed.rank(), distributed.world_size()
        # What an earlier start of these ranks has told is left in torchrun's store.
        self._key = f"presence/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        self._does: tuple[str, float | None] = ('was starting', None)
        self._beats = 0
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._watch, name='presence', daemon=True)
        self._thread.start()

    def does(self, what: str, watched: bool = False) -> None:
        """Note what the rank begins to do, and whether that must end in time."""
        self._does = what, time.monotonic() if watched else None

    def close(self) -> None:
        """Stop telling and watching."""
        self._gone.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._gone.wait(BEAT):
            what, since = self._does
            try:
                self._tell_others(what)
                if since is not None and time.monotonic() - since > self.patience:
                    self._leave(self.missing())
            except RuntimeError as error:  # the store is gone, and with it the host of rank 0
                if since is not None and time.monotonic() - since > self.patience:
                    self._leave(f'the host where the ranks have met is not reached: {error}')

    def _tell_others(self, what: str) -> None:
        self._beats += 1
        self.store.set(f'{self._key}/{self.rank}',
                       json.dumps([self._beats, socket.gethostname(), what]))

    def _heard(self) -> dict[int, tuple[int, str, str]]:
        keys = {rank: f'{self._key}/{rank}' for rank in range(self.world)}
        return {rank: tuple(json.loads(self.store.get(key))) for rank, key in keys.items()
                if self.store.check([key])}

    def missing(self) -> str:
        """Return who is not heard of, or else what everybody does; takes some seconds."""
        before = self._heard()
        time.sleep(3 * BEAT)
        self._tell_others(self._does[0])
        now = self._heard()
        silent = [f'rank {rank}' + (f' on {now[rank][1]}, which last told that it {now[rank][2]}'
                                    if rank in now else ', which never told anything')
                  for rank in range(self.world) if now.get(rank) == before.get(rank)]
        if silent:
            return 'not heard of any more: ' + '; '.join(silent)
        said: dict[str, list[int]] = {}
        for rank, (_, _, what) in now.items():
            said.setdefault(what, []).append(rank)
        least = min(said.values(), key=len)  # most wait for the few
        return '; '.join(f"rank{'s' if len(ranks) > 1 else ''} {_short(ranks)}"
                         f"{f' on {now[ranks[0]][1]}' if ranks is least else ''} {what}"
                         for what, ranks in sorted(said.items(), key=lambda pair: len(pair[1])))

    def _leave(self, found: str) -> None:
        if not self._gone.is_set():
            self.tell(f'no step has ended for {self.patience:g} s; {found}; expected ranks that '
                      'answer, or a larger --timeout; --resume goes on from the last checkpoint')
            os._exit(HANGS)  # the main thread is in a call that does not come back


@contextlib.contextmanager
def attending(presence: Presence | None) -> Iterator[None]:
    """Make an exchange between ranks that failed a sentence that names who is missing.

    Raises:
        UserError: a rank or a host is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if presence is None or not any(word in str(error) for word in _EXCHANGES):
            raise
        raise UserError(f'an exchange between ranks has failed; {presence.missing()}',
                        where=str(error).partition('. ')[0].rpartition('] ')[2],
                        expected='all ranks; --resume goes on from the last checkpoint, and '
                                 'torchrun --max-restarts=N starts by itself') from error
    finally:
        if presence is not None:
            presence.close()


def _short(ranks: list[int]) -> str:
    return ', '.join(map(str, ranks[:8])) + (', ...' if len(ranks) > 8 else '')
