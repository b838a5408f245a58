"""Telling a mistake once, though several processes of a launcher come to it."""

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from ..errors import shown

WAIT = 5.0  # seconds in which rank 0 comes to the same mistake
FRESH = 60.0  # seconds after which a mark is of an earlier start
# Names of the rank, the number of ranks and what else tells one start from another
_LAUNCHERS = (('RANK', 'WORLD_SIZE', ()),  # torchrun
              ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', ()),
              ('PMI_RANK', 'PMI_SIZE', ()),
              ('SLURM_PROCID', 'SLURM_NTASKS', ('SLURM_JOB_ID', 'SLURM_STEP_ID')))


def tell(message: str) -> None:
    """Print a message as an error: rank 0's at once, another rank's if rank 0 has another one.

    Mistakes in arguments come up before the processes know each other. So rank 0 leaves a mark in
    the host's folder of temporary files, which the others look for; on a host without rank 0 one
    of them speaks for all. torchrun ends with a report of its own that names the process that
    failed first: the message is handed to it, too.
    """
    rank, start = _who()
    report = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if report and not os.path.exists(report):
        with contextlib.suppress(OSError):  # it is printed all the same
            Path(report).write_text(json.dumps(dict(message=f'error: {shown(message)}',
                                                    timestamp=int(time.time()))))
    if start is None or not _is_told(rank, f'{start} {message}'):
        print(f'[rank {rank}] error: {message}' if rank else f'error: {message}',
              file=sys.stderr, flush=True)


def is_first() -> bool:
    """Return whether this process is rank 0, or alone."""
    return _who()[0] == 0


def _who() -> tuple[int, str | None]:
    """Return the rank and what all ranks of this start have in common, None for one process."""
    for rank, world, names in _LAUNCHERS:
        if rank in os.environ and int(os.environ.get(world, 1)) > 1:
            if not all(name in os.environ for name in names):
                return int(os.environ[rank]), None
            # srun's name a start; other launchers are the parent of its processes.
            start = [os.environ[name] for name in names] or [str(os.getppid())]
            return int(os.environ[rank]), ' '.join(start)
    return 0, None


def _is_told(rank: int, message: str) -> bool:
    """Return whether another process tells this; if not, say that we do."""
    word = hashlib.sha256(message.encode('utf-8', 'surrogateescape')).hexdigest()[:16]
    mark = Path(tempfile.gettempdir()) / f'.openselfsup-told-{word}'
    end = time.monotonic() + (WAIT if rank else 0)
    while time.monotonic() < end:
        if _is_fresh(mark):
            return True
        time.sleep(0.1)
    with contextlib.suppress(OSError):  # without a mark it is told twice, better than never
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            if rank and _is_fresh(mark):
                return True
            mark.touch()
    return False


def _is_fresh(mark: Path) -> bool:
    try:
        return time.time() - mark.stat().st_mtime < FRESH
    except OSError:
        return False
