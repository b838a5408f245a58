"""Which files a folder holds: the one listing behind everything that reads a user's files.

- Folders and links to folders are entered at any depth; a link that leads back to a folder that
  it lies in is not followed.
- Hidden files and folders (names that start with a dot, such as ``.ipynb_checkpoints``) and what
  systems leave behind (``__MACOSX``, ``@eaDir``, ...) are passed over.
- What cannot be read, a folder or a link to nowhere, is an error: a data set must not become
  smaller without a word. Files of other kinds are counted.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError, located, nearest

SYSTEM_FOLDERS = ('__macosx', '__pycache__', '@eadir', '$recycle.bin', 'lost+found',
                  'system volume information')
_PARTS = ('train', 'training', 'val', 'valid', 'validation', 'test', 'testing')  # of a data set

logger = logging.getLogger(__name__)


@dataclass
class Listing:
    """The files below a folder.

    Attributes:
        root: the folder.
        paths: files of the wanted kinds, relative to the root, with forward slashes, sorted.
        others: files of other kinds by their suffix in lower case ('' for none).
        hidden: names passed over because they are hidden or a system's own.
        empty: folders directly in the root below which there is no wanted file, sorted.
        twice: pairs of folders that links make one and the same.
        entered: every folder that was entered, by its real path.
    """

    root: str
    paths: list[str] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)
    hidden: int = 0
    empty: list[str] = field(default_factory=list)
    twice: list[tuple[str, str]] = field(default_factory=list)
    entered: dict[str, str] = field(default_factory=dict)

    def by_folder(self) -> dict[str, list[str]]:
        """Return the paths by the folder of the root that they lie below; '' for the root."""
        found: dict[str, list[str]] = {}
        for path in self.paths:
            found.setdefault(path.partition('/')[0] if '/' in path else '', []).append(path)
        return found

    def passed_over(self) -> str:
        """Say what else is there, '' if nothing is."""
        parts = [f'{count} {suffix or "without an ending"}'
                 for suffix, count in self.others.most_common(5)]
        if len(self.others) > 5:
            parts.append(f'{len(self.others) - 5} further kinds')
        if self.hidden:
            parts.append(f'{self.hidden} hidden')
        if self.empty:
            parts.append('folders without a file of these: ' + _shortened(self.empty))
        return ', '.join(parts)


def list_files(root: str | Path, suffixes: Iterable[str], deep: bool = True) -> Listing:
    """List the files below a folder that end in one of the suffixes, in any case.

    Args:
        root: the folder.
        suffixes: in lower case, with their dot.
        deep: False for the files directly in the folder only.

    Raises:
        UserError: no such folder; a folder that cannot be read; a link to nowhere.
    """
    root = str(root)
    require_folder(root)
    listing = Listing(root)
    _enter(root, '', [os.path.realpath(root)], tuple(suffixes), deep, listing)
    for path, same in listing.twice:
        logger.warning('%s: %s and %s are one folder: what lies in it comes twice', root, path,
                       same)
    listing.paths.sort()
    filled = set(listing.by_folder())
    listing.empty = [name for name in listing.empty if name not in filled]
    return listing


def list_class_folders(root: str | Path, suffixes: Iterable[str]) -> tuple[Listing, list[str]]:
    """List the tiles of class folders, and the names of the classes.

    Returns:
        The listing, and the sorted names of the folders in the root that hold a wanted file;
        empty where all of them lie directly in the root.

    Raises:
        UserError: as :func:`list_files`; the folders are parts of a data set.
    """
    listing = list_files(root, suffixes)
    if fault := parts_as_classes(listing):
        raise fault
    return listing, sorted(name for name in listing.by_folder() if name)


def parts_as_classes(listing: Listing) -> UserError | None:
    """Return what is wrong where the folders of a root are parts of a data set, not classes.

    They are if all are called like parts (train, test, ...) and hold no file themselves, but
    folders of the same names, two or more.
    """
    names = sorted({path.partition('/')[0] for path in listing.paths})
    if len(names) < 2 or any(name.lower() not in _PARTS for name in names):
        return None
    below: dict[str, set[str]] = {name: set() for name in names}
    for path in listing.paths:
        name, *folders = path.split('/')
        below[name].add(folders[0] if len(folders) > 1 else '')
    classes = below[names[0]]
    if len(classes) < 2 or '' in classes or any(held != classes for held in below.values()):
        return None
    return UserError(f'{_shortened(names)} are parts of a data set and no classes: each holds the '
                     f'folders {_shortened(sorted(classes))}', where=located(listing.root),
                     expected='one of the parts: ' + ' or '.join(
                         os.path.join(listing.root, name) for name in names))


def warn_of_look_alikes(names: Sequence[str], where: str) -> None:
    """Warn of class folders whose names differ in case or blanks only."""
    by_form: dict[str, list[str]] = {}
    for name in names:
        by_form.setdefault(name.strip().casefold(), []).append(name)
    for alike in by_form.values():
        if len(alike) > 1:
            logger.warning('%s: the class folders %s are different classes, though their names '
                           'differ in case or blanks only', where, ', '.join(map(repr, alike)))


def files_in(folder: str | Path, suffixes: Iterable[str], deep: bool = False) -> list[Path]:
    """Return the files of a folder with one of the suffixes, train_2 before train_10."""
    found = [Path(folder, path) for path in list_files(folder, suffixes, deep).paths]
    return sorted(found, key=natural)


def folders_below(root: str | Path) -> list[Path]:
    """Return a folder and all folders below it that are not passed over, sorted."""
    listing, found = Listing(str(root)), [Path(root)]
    _enter(str(root), '', [os.path.realpath(root)], (), True, listing, found)
    return sorted(found)


def natural(name: str | Path) -> list:
    """Sort key under which train_2 comes before train_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', str(name))]


def require_folder(folder: str) -> None:
    """Raise UserError, with the nearest name, if there is no such folder."""
    if os.path.isdir(folder):
        return
    if os.path.exists(folder):
        raise UserError('this is a file, not a folder', where=located(folder))
    parent = Path(folder).parent
    try:
        siblings = [p.name for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
    except OSError:
        siblings = []
    raise UserError('no such folder', where=located(folder),
                    nearest=nearest(Path(folder).name, siblings))


def _shortened(names: Sequence[str]) -> str:
    return ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # of a link to itself, or into a folder that may not be read
        raise UserError(f'this link cannot be followed: {error.strerror}',
                        where=located(entry.path), expected='a link to a file or folder that is '
                        'there, or no link') from None


def _enter(folder: str, prefix: str, above: list[str], suffixes: tuple[str, ...], deep: bool,
           listing: Listing, folders: list[Path] | None = None) -> None:
    """Add what lies in a folder to the listing; ``above`` are the real paths that lead here."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f'this folder cannot be read: {error.strerror}', where=located(folder),
                        expected='a folder that can be read, or one moved out of the data set'
                        ) from None
    for entry in entries:
        if entry.name.startswith('.') or entry.name.lower() in SYSTEM_FOLDERS:
            listing.hidden += 1
        elif _is_folder(entry):
            real = (os.path.realpath(entry.path) if entry.is_symlink()
                    else os.path.join(above[-1], entry.name))
            if not deep or real in above:
                continue
            path = prefix + entry.name
            if (same := listing.entered.setdefault(real, path)) != path:
                listing.twice.append((path, same))
            if not prefix:
                listing.empty.append(entry.name)
            if folders is not None:
                folders.append(Path(entry.path))
            _enter(entry.path, f'{path}/', [*above, real], suffixes, deep, listing, folders)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            raise UserError('this link leads nowhere', where=located(entry.path),
                            expected='a link to a file or folder that is there (is its disk '
                                     'mounted?), or no link')
        elif entry.name.lower().endswith(suffixes):
            listing.paths.append(prefix + entry.name)
        elif suffixes:
            listing.others[os.path.splitext(entry.name)[1].lower()] += 1
