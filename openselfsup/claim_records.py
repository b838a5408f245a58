"""What a claim says of its holder: a process, on a host, perhaps a start of a Slurm job."""

import datetime
import os
import platform
import secrets
import shlex
import sys
from pathlib import Path

FIELDS = {'what', 'command', 'host', 'pid', 'since', 'machine', 'namespace', 'start', 'job',
          'restarts', 'token'}


def about_us(what: str) -> dict:
    """Return what a claim says of this process.

    Args:
        what: what it does.
    """
    number = os.environ.get('SLURM_RESTART_COUNT', '0')
    return dict(
        what=what, command=shlex.join(sys.argv),
        host=platform.node(), pid=os.getpid(),
        since=datetime.datetime.now().astimezone().isoformat(' ', 'seconds'),
        machine=_text_of('/proc/sys/kernel/random/boot_id') or platform.node(),
        namespace=_namespace(), start=start_of(os.getpid()),
        job=os.environ.get('SLURM_JOB_ID'), restarts=int(number) if number.isdigit() else 0,
        token=secrets.token_hex(8))


def _text_of(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    """Return what process ids are relative to, None where that cannot be told."""
    try:
        return os.readlink('/proc/self/ns/pid')
    except OSError:
        return None


def start_of(pid: int) -> str | None:
    """Return when a process started, which no later process of this id shares; None if it ended."""
    status = _text_of(f'/proc/{pid}/stat')
    if status is None:
        return None
    state, *fields = status.rpartition(')')[2].split()  # names may hold brackets and spaces
    return None if state in 'ZX' else fields[18]


def describe(holder: dict) -> str:
    """Return the holder of a claim in words; an empty record is that of somebody unknown."""
    if not holder:
        return 'another process'
    return (f"process {holder['pid']} on {holder['host']} ({holder['what']}: "
            f"{holder['command']}; since {holder['since']})")
