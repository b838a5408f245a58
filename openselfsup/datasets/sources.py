"""Sources: where tiles come from. A source gives one RGB tile by its index."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError, listed, located, nearest
from ..registry import SOURCES
from .decode import read_tile
from .headers import SUFFIXES, Header, TileError
from .listing import list_files, parts_as_classes, require_folder, warn_of_look_alikes
from .parallel import read_headers
from .tile_lists import check_encoding, parse_list

logger = logging.getLogger(__name__)


class Source(ABC):
    """What every source offers; a new one overrides ``__len__``, ``read`` and ``path``.

    Attributes:
        classes: names of the labels 0, 1, ...; None without labels or names.
        labels: int64 array of one label per tile, None without labels.
        fault: what is wrong with what looks like labels and is not taken for them, or None.
        passed_over: what else lies where the tiles were found, in words; '' for nothing.
        tile_size: (height, width) of all tiles in pixels, None if it is not known (see
            ``check``) or not the same for all.
        grouped: whether :meth:`permutation` keeps tiles together that are stored together.
        endless: whether every epoch has tiles of its own: tile i of epoch e is then read as
            index ``e * len(source) + i``, and ``labels`` are those of epoch 0.
    """

    classes: list[str] | None = None
    labels: np.ndarray | None = None
    fault: UserError | None = None
    passed_over: str = ''
    tile_size: tuple[int, int] | None = None
    grouped: bool = False
    endless: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of tiles."""

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Return tile ``index`` as uint8 array of shape (H, W, 3), RGB.

        Called from several threads and forked processes at once.

        Raises:
            TileError: the tile cannot be read.
        """

    @abstractmethod
    def path(self, index: int) -> str:
        """Return what a message should call tile ``index``."""

    def stamp(self, index: int) -> Sequence[int] | None:
        """Return numbers that change when the content of tile ``index`` does, without reading it.

        By default size in bytes and time of change in ns of the file that :meth:`path` names;
        None, which says that it cannot be told, where that is no file. Called from several
        threads at once.
        """
        return stamp_of(self.path(index))

    def files(self) -> list[str]:
        """Return what tells by its names and times of change whether the tiles are the same.

        By default the path of every tile; an endless source names what its tiles are cut from.
        """
        return [self.path(i) for i in range(len(self))]

    def permutation(self, generator: torch.Generator) -> np.ndarray:
        """Draw the order of an epoch, int64 (N,): each tile once, by the generator alone."""
        return torch.randperm(len(self), generator=generator).numpy()

    def coming(self, order: np.ndarray, place: int) -> None:  # noqa: B027 (free to override)
        """Learn, in the process that trains, what is read soon; default: nothing is done.

        Called before every batch. A source whose tiles lie far away fetches them ahead.

        Args:
            order: tiles in the order in which the epoch reads them, the same object throughout
                an epoch.
            place: how many of them have been asked for.
        """

    def label(self, index: int) -> int | None:
        """Return the label of tile ``index``, None if the source has none."""
        return None if self.labels is None else int(self.labels[index])

    def require_labels(self) -> np.ndarray:
        """Return ``labels``.

        Raises:
            UserError: the source has none, or a fault in their place.
        """
        if self.labels is None:
            raise self.fault or UserError('these tiles have no labels',
                                          where=self.path(0) if len(self) else None)
        return self.labels

    def require_classes(self) -> list[str]:
        """Return ``classes``.

        Raises:
            UserError: the source has none.
        """
        if self.classes is None:
            raise UserError('the labels of these tiles have no names',
                            where=self.path(0) if len(self) else None)
        return self.classes

    def check(self) -> Sequence[Header]:
        """Raise UserError with all tiles that are known to be unusable; default: none.

        Returns:
            The header of every tile, in order; nothing for a source that reads none.
        """
        return ()


class FileSource(Source):
    """A source of one file per tile.

    Args:
        paths: the files, in the order of the indices.
        labels: one whole number per file, or None.
        classes: names of the labels, or None.
        name: what messages call this source.
    """

    def __init__(self, paths: Sequence[str], labels: Iterable[int] | None,
                 classes: list[str] | None, name: str):
        self.paths = list(paths)
        self.labels = None if labels is None else np.array(list(labels), np.int64)
        self.classes = classes
        self.name = name
        if not self.paths:
            raise UserError('there is not one tile', where=name,
                            expected='files ending in ' + ', '.join(SUFFIXES))

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        return read_tile(self.paths[index])

    def path(self, index: int) -> str:
        return self.paths[index]

    def check(self) -> list[Header]:
        """Check existence and headers of all files, many at a time; learn ``tile_size``.

        Returns:
            The header of every tile, in order.

        Raises:
            UserError: some files cannot be used: the first ten are listed, all are counted.
        """
        found = read_headers(self.paths)
        bad = [entry for entry in found if isinstance(entry, TileError)]
        if bad:
            raise UserError(listed(f'{len(bad)} of {len(self)} tiles cannot be used', bad),
                            where=self.name)
        headers = [entry for entry in found if isinstance(entry, Header)]
        sizes = {(header.height, header.width) for header in headers}
        self.tile_size = sizes.pop() if len(sizes) == 1 else None
        return headers


@SOURCES.register_module()
class ImageList(FileSource):
    """Tiles named by a text file, one ``path`` or ``path label`` a line.

    This is the published ``meta/train.txt`` form. Paths may contain spaces; empty lines are
    ignored; either all lines have a label or none. Tile i is the i-th of the lines.

    Args:
        list_file: the text file: UTF-8, or UTF-16 with a mark. Names whose bytes are not UTF-8
            stand in it as they are on the disk; back slashes of Windows are understood.
        root: folder that the paths start from, or several: each path is taken from the
            first of them that has it.
        classes: names of the labels, for reports.

    Raises:
        UserError: no such file or folder, or lines of another form (all are reported with
            their line numbers).
    """

    def __init__(self, list_file: str, root: str | Sequence[str] = '',
                 classes: Sequence[str] | None = None):
        roots = _folders(root)
        classes = None if classes is None else list(classes)
        entries = parse_list(list_file, classes)
        labels = [label for _, label in entries if label is not None]
        paths = [_first_existing(path, roots) for path, _ in entries]
        check_encoding(str(list_file), paths)
        super().__init__(paths, labels if len(labels) == len(paths) else None, classes,
                         str(list_file))


@SOURCES.register_module()
class ImageFolder(FileSource):
    """All tiles below one or more folders, at any depth, sorted by their relative path.

    If the tiles lie in class folders (``root/{class}/.../tile.png``) they are labelled by
    class name in alphabetical order, whatever root the class was found under; tiles that lie
    directly in the root have no label. What is passed over: :mod:`.listing`. Where the folders
    are parts of a data set (train, test), whoever needs labels is refused.

    Args:
        root: the folder, or several: their tiles follow one another.
        labels: False to take no labels, whatever the folders are called.
        classes: the class names in the order of their labels, where that is not the
            alphabetical one. Classes without a folder are allowed, other folders are not.

    Raises:
        UserError: no such folder, no tile in it, a folder that is none of ``classes``, or
            tiles beside class folders.
    """

    def __init__(self, root: str | Sequence[str], labels: bool = True,
                 classes: Sequence[str] | None = None):
        roots = _folders(root)
        listings = [list_files(top or '.', SUFFIXES) for top in roots]
        found = [(listing.root, path) for listing in listings for path in listing.paths]
        if not found:
            there = '; '.join(filter(None, (listing.passed_over() for listing in listings)))
            raise UserError('there is not one tile', where=', '.join(map(located, roots)),
                            expected='files ending in ' + ', '.join(SUFFIXES)
                                     + (f' (there are: {there})' if there else ''))
        paths = [os.path.join(top, path) for top, path in found]
        folders = [path.split('/')[0] if '/' in path else None for _, path in found]
        name = ', '.join(roots)
        self.passed_over = '; '.join(filter(None, (each.passed_over() for each in listings)))
        if not labels or not any(folders):
            if classes is not None:
                raise UserError('classes are given, but no tile is labelled', where=name,
                                expected='one folder per class, and labels=True')
            super().__init__(paths, None, None, name)
            return
        own = [folder for folder in folders if folder is not None]
        if classes is None or not set(own) <= set(classes):
            self.fault = next(filter(None, map(parts_as_classes, listings)), None)
        if self.fault and classes is not None:
            raise self.fault
        if self.fault:  # they may be trained on without labels
            super().__init__(paths, None, None, name)
            return
        loose = [path for path, folder in zip(paths, folders) if folder is None]
        if loose:
            raise UserError(listed(f'{len(loose)} tiles lie beside the class folders (all must '
                                   f'lie in one, or none; labels=False ignores them)', loose),
                            where=name)
        names = sorted(set(own)) if classes is None else list(classes)
        for folder in sorted(set(own) - set(names)):
            raise UserError(f"the folder '{folder}' is none of the classes", where=name,
                            expected=', '.join(names), nearest=nearest(folder, names))
        warn_of_look_alikes(names, name)
        label_of = {folder: label for label, folder in enumerate(names)}
        super().__init__(paths, [label_of[folder] for folder in own], names, name)


def stamp_of(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return a file's size in bytes and its time of change in ns; None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def build_source(source: dict | Source) -> Source:
    """Return the source that a config dict describes; a source is returned as it is."""
    return SOURCES.build(source) if isinstance(source, dict) else source


def _folders(root: str | Sequence[str]) -> list[str]:
    """Return the roots as a list, all of which exist; '' stands for the current folder."""
    roots = [str(root)] if isinstance(root, (str, Path)) else [str(r) for r in root]
    if not roots:
        raise UserError('no root folder is given')
    for folder in filter(None, roots):
        require_folder(folder)
    return roots


def _first_existing(path: str, roots: list[str]) -> str:
    """Return the place of a path below the first root that has it.

    A list written on Windows has back slashes; here they are part of a name, so a path that
    exists nowhere is looked for with forward slashes, too.
    """
    spellings = [path, path.replace('\\', '/')] if '\\' in path else [path]
    places = [os.path.join(root, spelling) for spelling in spellings for root in roots]
    return next((place for place in places[:-1] if os.path.exists(place)), places[-1])
