"""Who writes into a folder: one process at a time, on whatever host it runs.

A claim is a hidden file, ``.in_use``, that says who writes, and a lock on that file. The lock is
a POSIX record lock: the system gives it up when the process ends in any way, forked loader
processes do not inherit it, and network file systems pass it on to other hosts. Some file systems
have no locks, or keep them to one host. There the file itself is the claim: its holder touches it
every :data:`BEAT` seconds, and one that was not touched for :data:`SILENCE` seconds is dead. Ages
are differences of times that the file system gave, so the clocks of hosts need not agree.
"""

import contextlib
import errno
import json
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from .claim_records import FIELDS, about_us, describe, start_of
from .errors import UserError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: the file alone is the claim
    fcntl = None

IN_USE = '.in_use'
BEAT = 15.0  # seconds between two touches of a claim
SILENCE = 60.0  # seconds without a touch after which its holder is dead
REQUEUE = 120.0  # seconds in which a file system gives up the lock of a job's earlier start
SETTLE = 0.5  # seconds after which nobody replaces a claim that was found dead before
LOOK = 1.0  # seconds between two looks at a claim whose holder may be dead
# The lock is on one byte far behind the text: some systems let nobody read locked bytes.
_LOCKED_BYTE = 1 << 30
_HELD_BY_OTHER = (errno.EACCES, errno.EAGAIN)
logger = logging.getLogger(__name__)
_held: dict[Path, int] = {}  # claims of this process, which its own locks do not keep out


class Claim:
    """A folder that is held for writing.

    Args:
        path: the claim's file in the folder.
        file: descriptor of that file, locked where the file system has locks.
    """

    def __init__(self, path: Path, file: int):
        self._path, self._file = path, file
        self._released = threading.Event()
        threading.Thread(target=self._beat, name='claim', daemon=True).start()

    def check(self) -> None:
        """Make sure that the folder is still ours, which a process that was halted cannot know.

        Raises:
            UserError: another process holds it now, or somebody removed the claim.
        """
        try:
            ours = _is_at(self._file, self._path)
        except OSError:  # the file system cannot be reached, which whoever writes will say
            return
        if not ours:
            raise UserError('this process no longer holds this folder: its claim was removed or '
                            'taken over', where=str(self._path.parent),
                            expected=f'{self._path.name} to be left alone while a process writes')

    def release(self) -> None:
        """Give the folder back."""
        self._released.set()
        ours = _is_at(self._file, self._path)
        if not fcntl:  # Windows removes no open files
            os.close(self._file)
        if ours:
            with contextlib.suppress(OSError):  # left there it claims nothing for long
                self._path.unlink()
        if fcntl:
            os.close(self._file)

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with contextlib.suppress(OSError):  # the next beat may reach the file system again
                os.utime(self._file if fcntl else self._path)


@contextlib.contextmanager
def claimed(folder: str | Path, what: str, name: str = IN_USE) -> Iterator[Claim]:
    """Hold a folder for writing; a second process is told who holds it.

    A holder that is dead is taken over: at once where it ran on this host, where the file system
    has locks, or where Slurm started this job anew; else when it was silent for long enough.

    Args:
        folder: folder to write into; made if it is not there, and removed again if nothing was
            written.
        what: what the holder does, for messages: 'pretraining', 'packing tiles'.
        name: file of the claim; another name is another claim on the same folder.

    Yields:
        The claim, whose ``check`` tells a long run whether it still has the folder.

    Raises:
        UserError: another process, or another part of this one, writes into the folder (its
            command, host, process id and start are named), or the folder cannot be made.
    """
    folder = Path(folder)
    made = _make(folder)
    path = folder.resolve() / name
    if _held.get(path) == os.getpid():
        raise UserError('this process writes into this folder already', where=str(folder),
                        expected='another folder')
    try:
        claim = _take(path, about_us(what))
    except OSError as error:
        _remove_empty(made)
        raise UserError(f'cannot be written: {error.strerror}', where=str(path)) from error
    _held[path] = owner = os.getpid()
    try:
        yield claim
    finally:
        if os.getpid() == owner:  # not a copy of us in a forked process
            del _held[path]
            claim.release()
            _remove_empty(made)


def stop_holder(folder: str | Path, name: str = IN_USE) -> str:
    """Ask the process that writes into a folder to save and end (SIGTERM).

    Args:
        folder: the folder.
        name: file of the claim.

    Returns:
        Who was asked, in words.

    Raises:
        UserError: nobody writes into it, or a process of another user or host.
    """
    try:
        file = os.open(Path(folder) / name, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError('no process writes into this folder', where=str(folder)) from None
    except OSError as error:
        raise UserError(f'cannot be read: {error.strerror}', where=str(folder)) from None
    holder, us = _read(file), about_us('')
    os.close(file)
    same = holder.get('namespace') == us['namespace'] and holder.get('machine') == us['machine']
    if not holder or (same and start_of(holder['pid']) != holder['start']):
        raise UserError('the process that wrote into this folder has ended', where=str(folder))
    if not same:
        raise UserError(f'{describe(holder)} writes into this folder', where=str(folder),
                        expected=f"the command on {holder['host']}")
    try:
        os.kill(holder['pid'], signal.SIGTERM)
    except PermissionError:
        raise UserError(f'{describe(holder)} is not yours', where=str(folder)) from None
    return describe(holder)


def _make(folder: Path) -> list[Path]:
    """Make a folder and return what had to be made, the innermost first."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = ('a file, not a folder, is there' if error.errno in (errno.EEXIST, errno.ENOTDIR)
                  else error.strerror)
        raise UserError(f'this folder cannot be made: {reason}', where=str(folder),
                        expected='a folder that can be written') from error
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # something was written
            folder.rmdir()


def _take(path: Path, us: dict) -> Claim:
    """Take a claim, waiting only while it is not known whether its holder lives."""
    began, waiting = time.monotonic(), None
    first: dict[str | None, int] = {}  # by token: the beat that we saw first
    while True:
        claim, fate, holder, beat = _attempt(path, us)
        if claim:
            return claim
        token = holder.get('token')
        touched = beat != first.setdefault(token, beat)
        if fate == 'alive' or touched or time.monotonic() - began > REQUEUE:
            raise _in_use(path, holder)
        if waiting != token:
            waiting = token
            logger.warning('%s: waiting to see whether %s has ended', path.parent,
                           describe(holder))
        time.sleep(LOOK)


def _attempt(path: Path, us: dict) -> tuple[Claim | None, str, dict, int]:
    """Try once; return the claim or None, and what is known of the holder: fate, record, beat."""
    file: int | None  # None while it is another's to close
    file, created = _open(path)
    try:
        lock, holder, beat = _lock(file), _read(file), os.fstat(file).st_mtime_ns
        alone = created and lock == 'none'  # others wait for what a new file will say
        fate = 'dead' if alone else _fate(holder, us, lock, _age(path.parent, beat))
        if fate == 'dead':
            if lock == 'ours' or alone:
                _write(file, us)
            else:
                os.close(file)
                file = None
                file = _replace(path, us)
            if _is_at(file, path) and _read(file).get('token') == us['token']:
                claim, file = Claim(path, file), None
                return claim, fate, us, beat
        return None, fate, holder, beat
    finally:
        if file is not None:
            os.close(file)


def _fate(holder: dict, us: dict, lock: str, age: float) -> str:
    """Return what is known of a holder: 'dead', 'alive' or 'unknown'.

    Args:
        holder: its record, empty if there is none (yet).
        us: our record.
        lock: whose lock is on the file: 'ours', 'theirs', or 'none' where there are no locks.
        age: seconds since the file was touched.
    """
    earlier_start = (us['job'] is not None and holder.get('job') == us['job']
                     and holder['restarts'] < us['restarts'])
    if lock == 'theirs':  # Slurm has ended an earlier start: the file system will learn of it
        return 'unknown' if earlier_start or not holder else 'alive'
    if earlier_start or (lock == 'ours' and not holder):
        return 'dead'
    if holder.get('machine') == us['machine']:
        if lock == 'ours':
            return 'dead'
        if holder['namespace'] == us['namespace'] is not None:
            return 'alive' if start_of(holder['pid']) == holder['start'] else 'dead'
    return 'dead' if age > SILENCE else 'unknown'


def _open(path: Path) -> tuple[int, bool]:
    """Open the file of a claim; also return whether it was not there before."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # given back at this moment
                return os.open(path, os.O_RDWR), False


def _lock(file: int) -> str:
    """Lock a claim; return whose the lock is now: 'ours', 'theirs', 'none' where there is none."""
    if not fcntl:
        return 'none'
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKED_BYTE)
    except OSError as error:
        return 'theirs' if error.errno in _HELD_BY_OTHER else 'none'
    return 'ours'


def _replace(path: Path, us: dict) -> int:
    """Put our claim in the place of a dead one without a lock; the last one to do so has it."""
    temporary = path.with_name(f"{path.name}.{us['token']}")
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    _write(file, us)
    os.close(file)
    os.replace(temporary, path)
    time.sleep(SETTLE)
    return os.open(path, os.O_RDWR)


def _write(file: int, record: dict) -> None:
    text = json.dumps(record, indent=1).encode() + b'\n'
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, text)
    os.ftruncate(file, len(text))
    os.fsync(file)


def _read(file: int) -> dict:
    """Return the record in a claim; an empty one if it is not written yet."""
    os.lseek(file, 0, os.SEEK_SET)
    try:
        record = json.loads(os.read(file, 1 << 16))
    except ValueError:
        return {}
    return record if isinstance(record, dict) and record.keys() >= FIELDS else {}


def _is_at(file: int, path: Path) -> bool:
    """Return whether an open file is (still) the one of this name."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _age(folder: Path, beat: int) -> float:
    """Return the seconds since a time of the folder's file system."""
    with tempfile.TemporaryFile(dir=folder) as now:
        return (os.fstat(now.fileno()).st_mtime_ns - beat) / 1e9


def _in_use(path: Path, holder: dict) -> UserError:
    return UserError(f'{describe(holder)} writes into this folder', where=str(path.parent),
                     expected='another folder, or to wait for the end of that process; if it no '
                              f'longer exists, remove {path}')
