"""Unpacking archives so that an interrupted run can go on."""

import hashlib
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .errors import UserError
from .files import unforced_file
from .progress import progress

ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz')


def unpack(archive: Path, folder: Path, known_md5: str | None = None) -> Path:
    """Unpack a zip or tar archive; files that are there already are not written again.

    Args:
        archive: ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz``.
        folder: where to.
        known_md5: checksum the archive must have, None where none was published.

    Raises:
        UserError: another checksum, a damaged archive, or a member that would leave the folder.
    """
    if known_md5 and (found := md5(archive)) != known_md5:
        raise UserError(f'its MD5 checksum is {found}: the download is damaged or another file',
                        where=str(archive), expected=known_md5)
    try:
        if archive.suffix == '.zip':
            with zipfile.ZipFile(archive) as file:
                _write_members(archive, folder, [
                    (m.filename, m.file_size, time.mktime((*m.date_time, 0, 0, -1)), m)
                    for m in file.infolist() if not m.is_dir()], file.open)
        else:
            with tarfile.open(archive) as tar:
                _write_members(archive, folder, [
                    (m.name, m.size, m.mtime, m) for m in tar.getmembers() if m.isfile()],
                    tar.extractfile)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise UserError(f'this archive is damaged: {error}', where=str(archive)) from None
    return folder


def md5(path: Path) -> str:
    """Return the MD5 checksum of a file."""
    digest = hashlib.md5()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_members(archive: Path, folder: Path, members: list,
                   opened: Callable[[Any], IO[bytes] | None]) -> None:
    root = folder.resolve()
    for name, size, changed, member in progress(members, f'unpacking {archive.name}'):
        target = (root / name).resolve()
        if not target.is_relative_to(root):
            raise UserError(f"its member '{name}' would be written outside of the folder",
                            where=str(archive))
        if target.exists() and target.stat().st_size == size:
            continue
        with unforced_file(target) as part:
            content = opened(member)
            assert content is not None, 'tarfile answers None for folders and the like only'
            with content as source, open(part, 'wb') as file:
                shutil.copyfileobj(source, file, 1 << 20)
            os.utime(part, (changed, changed))  # by which it is known when it is unpacked again
