"""Writing files that are always the old ones or the new ones, whatever happens meanwhile."""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from .errors import UserError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None

# What file systems without hard links answer.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK,
             errno.EXDEV)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for binary writing that takes its name only when it is complete.

    The bytes go to a hidden file in the same folder, are forced to the disk, and the file is
    then renamed, which the file system does at once or not at all.

    Raises:
        UserError: the disk is full, or the folder cannot be written. The old file is untouched.
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():  # a link is replaced, and not what it is to
        raise UserError('this is a folder; a file was to be written', where=str(path))
    temporary = _temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        with _begin(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl:  # while the lock still shows that somebody is writing
                os.replace(temporary, path)
        if not fcntl:
            os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch hides the system's error behind its own
        cause = system_error(error)
        if cause is None:
            raise
        raise not_written(path, cause) from error
    finally:
        _remove(temporary)


@contextlib.contextmanager
def unforced_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, whose file takes the name ``path`` when it is complete.

    Nothing is forced to the disk, and nothing else in the folder is looked at: for the many files
    of a data set, which can be made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{secrets.token_hex(4)}')
    try:
        yield part
        os.replace(part, path)
    finally:
        _remove(part)


def write_text(path: str | Path, text: str, errors: str = 'surrogateescape') -> None:
    """Write a text file that is there completely or not at all.

    Args:
        path: the file.
        text: its content, written as UTF-8.
        errors: what becomes of names that are not UTF-8, see ``str.encode``: by default they are
            written as they are; pages show them with 'backslashreplace'.
    """
    write_bytes(path, text.encode('utf-8', errors))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file that is there completely or not at all."""
    with atomic_file(path) as file:
        file.write(data)


def check_folder(folder: str | Path) -> None:
    """See that files can be written into a folder, or it be made, before any work.

    Raises:
        UserError: they cannot.
    """
    folder = Path(folder)
    there = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), Path())
    probe = _temporary_name(there / 'probe')
    try:
        probe.write_bytes(b'?')
    except OSError as error:
        raise UserError(f'nothing can be written here: {reason(error)}', where=str(folder),
                        expected='a folder that can be written') from error
    finally:
        _remove(probe)


def write_json(path: str | Path, content: object, indent: int | None = None) -> None:
    """Write a JSON file that is there completely or not at all, on one line without ``indent``."""
    write_text(path, json.dumps(content, indent=indent) + ('\n' if indent else ''))


def read_json(path: str | Path) -> dict:
    """Read a JSON file.

    Raises:
        UserError: it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding='utf-8-sig'))
    except OSError as error:
        raise UserError(error.strerror or str(error), where=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f'not valid JSON: {error}', where=str(path)) from None


def flat(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Return the values of dicts within dicts by their dotted keys: ``{'a': {'b': 1}}`` is a.b = 1.

    Args:
        tree: what JSON or YAML holds.
        prefix: of the keys.
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {
            f'{prefix}{key}': value}
    return found


def copy_file(source: Path, target: Path) -> None:
    """Copy a file unless the same (size and time of change) is there."""
    if target.exists():
        old, new = target.stat(), source.stat()
        if old.st_size == new.st_size and int(old.st_mtime) == int(new.st_mtime):
            return
    with unforced_file(target) as part:
        shutil.copy2(source, part)


def link(path: str | Path, name: str | Path) -> None:
    """Let ``name``, in the same folder, stand for the checkpoint ``path`` too; atomic.

    It is a second hard link, which takes no room and outlives the deletion of ``path``; a
    copy where the file system has no hard links. Of a folder it is a symbolic link.

    Args:
        path: an existing checkpoint, such as ``epoch_3.pth``.
        name: its second name, such as ``latest.pth``; an existing file or link is replaced.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    path, name = Path(path), Path(name)
    temporary = _temporary_name(name)
    try:
        if path.is_dir():
            os.symlink(path.resolve().name, temporary)
        else:
            os.link(path, temporary)
        os.replace(temporary, name)
        sync_folder(name.parent)
    except OSError as error:
        if error.errno not in _NO_LINKS or path.is_dir():
            raise not_written(name, error) from error
        with open(path, 'rb') as source, atomic_file(name) as target:
            shutil.copyfileobj(source, target)
    finally:
        _remove(temporary)  # still there if both names were one file already


def _temporary_name(path: Path) -> Path:
    return path.with_name(f'.{path.name}.{secrets.token_hex(4)}.unfinished')


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):  # mostly because it has its final name by now
        temporary.unlink()


def cache_folder(name: str) -> Path:
    """Return where what can be made again is kept, below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(base, 'openselfsup', name)


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files that nobody is writing any more."""
    for left in folder.glob('.*.unfinished'):
        with contextlib.suppress(OSError):  # locked, or in use, or just gone: not ours to remove
            with open(left, 'r+b') as file:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()
            if not fcntl:
                left.unlink()


def _begin(temporary: Path) -> BinaryIO:
    """Open a new file, marked as being written until it is closed, be it by a kill."""
    while True:
        file = open(temporary, 'xb')
        if not fcntl:
            return file
        # A file system without locks cannot tell abandoned files either: nothing is removed.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():  # somebody may have taken it for abandoned before it was locked
            return file
        file.close()


def sync_folder(folder: Path) -> None:
    """Force a rename to the disk, where the system can."""
    if os.name != 'posix':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse this for folders; the bytes are safe already.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def system_error(error: BaseException | None) -> OSError | None:
    """Return what the system said, which torch hides behind its own; None if nothing."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__context__
    return None


def reason(error: OSError) -> str:
    """Return why the system could not write, in words."""
    reasons = {errno.ENOSPC: 'the disk is full', errno.EDQUOT: 'the disk quota is used up',
               errno.EEXIST: 'part of its path is a file, not a folder',
               errno.ENOTDIR: 'part of its path is a file, not a folder'}
    return reasons.get(error.errno or 0) or error.strerror or str(error)


class NotWritten(UserError):
    """A file could not be written; what was there before is untouched."""


def not_written(path: Path, error: OSError, by: str = '') -> NotWritten:
    """Return the error of a file that could not be written, ``by`` whom if that is of interest."""
    return NotWritten(f'could not be written{by}: {reason(error)}; what was there before is '
                      'untouched', where=str(path))
