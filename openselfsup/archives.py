"""Unpacking archives so that an interrupted run can go on."""

import gzip
import hashlib
import os
import shutil
import tarfile
import time
import zipfile
import zlib
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
        UserError: another checksum, a damaged archive, a zip with a password or of a compression
            that zipfile lacks: of these nothing is written; or a member that would leave the
            folder.
    """
    if known_md5 and (found := md5(archive)) != known_md5:
        raise UserError(f'its MD5 checksum is {found}: the download is damaged or another file',
                        where=str(archive), expected=known_md5)
    try:
        if archive.suffix == '.zip':
            with zipfile.ZipFile(archive) as file:
                if not known_md5:
                    _read_through(file, archive)
                _write_members(archive, folder, [
                    (m.filename, m.file_size, time.mktime((*m.date_time, 0, 0, -1)), m)
                    for m in file.infolist() if not m.is_dir()], file.open)
        else:
            with tarfile.open(archive) as tar:
                _write_members(archive, folder, [
                    (m.name, m.size, m.mtime, m) for m in _members_of(tar) if m.isfile()],
                    tar.extractfile)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error,
            EOFError) as error:
        what = str(error).partition('\n')[0].rstrip(':')
        raise UserError(f'this archive is damaged: {what}', where=str(archive),
                        expected='a whole copy of it') from None
    return folder


def _read_through(file: zipfile.ZipFile, archive: Path) -> None:
    """Compare every member with its checksum, which zipfile does where one is read to its end.

    Raises:
        UserError: one cannot be read: it wants a password, or another way of unpacking.
    """
    for member in progress(file.infolist(), f'checking {archive.name}'):
        try:
            source = file.open(member)
        except RuntimeError as error:  # zipfile's for a password, and for what it does not unpack
            raise UserError(f'this archive cannot be unpacked here: {error}', where=str(archive),
                            expected='a zip without password written with deflate, or the '
                                     'unpacked folder') from None
        with source:
            while source.read(1 << 20):
                pass


def _members_of(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of an archive that was read to its end.

    Only there lies the checksum of gzip; and tarfile takes a damaged header for the end.
    """
    members = tar.getmembers()
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    while block := tar.fileobj.read(1 << 20):
        if block.strip(b'\0'):
            raise tarfile.ReadError(f'no member begins at its byte {tar.offset}, and it does not '
                                    'end there')
    return members


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
