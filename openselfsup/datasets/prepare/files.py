"""Copying and unpacking files so that an interrupted run can go on, and progress."""

import hashlib
import os
import secrets
import shutil
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from ...errors import UserError, listed
from ...files import read_json, write_json
from ..sources import stamp_of

Item = TypeVar('Item')
ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz')
_CONSOLE = Console(stderr=True)


def progress(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield the items under a progress bar; four lines in all where there is no terminal."""
    if _CONSOLE.is_terminal:
        yield from track(items, what, console=_CONSOLE)
        return
    steps = {round(len(items) * k / 4) for k in (1, 2, 3, 4)}
    for i, item in enumerate(items, 1):
        yield item
        if len(items) >= 20 and i in steps:
            _CONSOLE.print(f'{what}: {i} of {len(items)}', highlight=False)



def go_on_with(path: Path, options: dict[str, object], src: Path, inputs: Iterable[Path]) -> None:
    """Note the options and the inputs of a run; refuse to go on from a run with others.

    Files that are there are not made again, so those of other options, or of an input as it was
    before, would stay among ours. Inputs may be added.

    Args:
        path: file to note them in.
        options: by name, of types that JSON has.
        src: folder of the inputs, which may have moved.
        inputs: files that what is prepared depends on, known by size and time of change.

    Raises:
        UserError: an earlier run noted other options, or an input has changed since.
    """
    stamps = {os.path.relpath(file, src): list(stamp_of(file) or ()) for file in inputs}
    if path.exists():
        earlier = read_json(path)
        known = earlier.pop('inputs', {})
        other = [f'{key} {earlier.get(key)}, now {value}' for key, value in options.items()
                 if earlier.get(key) != value]
        if other:
            raise UserError(f"this folder was prepared with {'; '.join(other)}",
                            where=str(path.parent), expected='the same options, or another DST')
        changed = [name for name, stamp in stamps.items() if known.get(name, stamp) != stamp]
        if changed:
            raise UserError(listed(f'{len(changed)} files have another size or time of change '
                                   'than when this folder was prepared from them', changed),
                            where=str(path.parent), expected='another DST')
        stamps = known | stamps
    write_json(path, {**options, 'inputs': stamps})


def copy_file(source: Path, target: Path) -> bool:
    """Copy a file unless the same (size and time of change) is there; return whether copied."""
    if target.exists():
        old, new = target.stat(), source.stat()
        if old.st_size == new.st_size and int(old.st_mtime) == int(new.st_mtime):
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f'.{target.name}.{secrets.token_hex(4)}')
    try:
        shutil.copy2(source, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return True


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an RGB image or a grey mask (uint8) as PNG under its name in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = image[..., ::-1] if image.ndim == 3 else image
    data = cv2.imencode('.png', np.ascontiguousarray(shown))[1]
    part = path.with_name(f'.{path.name}.{secrets.token_hex(4)}')
    try:
        part.write_bytes(data.tobytes())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def md5(path: Path) -> str:
    """Return the MD5 checksum of a file."""
    digest = hashlib.md5()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
                members = [(m.filename, m.file_size, time.mktime((*m.date_time, 0, 0, -1)), m)
                           for m in file.infolist() if not m.is_dir()]
                _write_members(archive, folder, members, file.open)
        else:
            with tarfile.open(archive) as file:
                members = [(m.name, m.size, m.mtime, m) for m in file.getmembers() if m.isfile()]
                _write_members(archive, folder, members, file.extractfile)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise UserError(f'this archive is damaged: {error}', where=str(archive)) from None
    return folder


def _write_members(archive: Path, folder: Path, members: list, opened) -> None:
    root = folder.resolve()
    for name, size, changed, member in progress(members, f'unpacking {archive.name}'):
        target = (root / name).resolve()
        if not target.is_relative_to(root):
            raise UserError(f"its member '{name}' would be written outside of the folder",
                            where=str(archive))
        if target.exists() and target.stat().st_size == size:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f'.{target.name}.part')
        with opened(member) as source, open(part, 'wb') as file:
            shutil.copyfileobj(source, file, 1 << 20)
        os.utime(part, (changed, changed))  # by which it is known when it is unpacked again
        os.replace(part, target)
