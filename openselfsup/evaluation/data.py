"""Labelled tiles of an evaluation: a training part and a test part, of the same classes."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..checkpoints.names import shorten
from ..datasets.headers import SUFFIXES
from ..datasets.listing import list_files, require_folder
from ..datasets.pcam import PCam
from ..datasets.sources import ImageFolder, Source
from ..datasets.tile_error import read_checked
from ..errors import UserError, nearest
from .copies import same_files, same_pixels
from .patients import (
    all_or_none,
    check_pattern,
    compile_pattern,
    nothing_to_hold_out,
    patients_of,
)
from .sampling import hold_out

NCT = ('NCT-CRC-HE-100K', 'CRC-VAL-HE-7K')
PCAM_H5 = 'camelyonpatch_level_2_split_{}_x.h5'
LAYOUTS = (f'{NCT[0]} and {NCT[1]}, train and test (class folders), or {PCAM_H5.format("train")} '
           f'and {PCAM_H5.format("test")}')


class Part(Source):
    """Some tiles of a source, in a given order; a tile may come several times.

    Args:
        source: the whole.
        indices: int64 array of shape (M,), tiles of the whole.
    """

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray):
        self.source, self.indices = source, np.asarray(indices, np.int64)
        self.labels, self.classes = source.require_labels()[self.indices], source.classes

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> np.ndarray:
        return read_checked(self.source, int(self.indices[index]))

    def path(self, index: int) -> str:
        return self.source.path(int(self.indices[index]))

    def stamp(self, index: int) -> Sequence[int] | None:
        return self.source.stamp(int(self.indices[index]))


@dataclass
class EvaluationData:
    """What is learnt from and what is tested on.

    Attributes:
        train, test: sources with labels 0..C-1 into ``classes``.
        classes: names of the classes.
        train_patients, test_patients: patient of each tile, or None where paths do not tell.
        notes: what a reader of the results must know about the data, in sentences.
        published: the two parts are a data set as it was published: what they have in common is
            said and not refused.
        shared: patients (None if unknown) and tiles that are in both parts.
    """

    train: Source
    test: Source
    classes: list[str]
    train_patients: np.ndarray | None = None
    test_patients: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    published: bool = False
    shared: dict[str, int | None] = field(default_factory=lambda: dict(patients=None, tiles=0))

    def tell_overlap(self, what: str) -> str:
        """Note what both parts have in common, as a warning beside every number.

        Raises:
            UserError: the parts are the user's own and nobody said that this may be.
        """
        if not self.published:
            raise UserError(f'{what}: a test that is not independent flatters', where='--test',
                            expected='parts that share no patient and no tile, or '
                                     '--allow_overlap to go on with this as a warning')
        self.notes.append(f'WARNING: {what}: the test is not independent, and the numbers flatter.')
        return self.notes[-1]


def find_data(dataset_path: str | None = None, train: str | None = None, test: str | None = None,
              share: float | None = None, seed: int = 0,
              patient_pattern: str | None = None, layout: str = 'NCT',
              allow_overlap: bool = False) -> EvaluationData:
    """Find training and test tiles, and refuse what would make the result meaningless.

    Args:
        dataset_path: a folder of one of the known layouts: NCT-CRC-HE-100K with
            CRC-VAL-HE-7K, ``train`` with ``test`` (PCam's ``pos`` / ``neg`` folders, or any
            class folders), or PCam's HDF5 files.
        train: class folders (or a PCam ``_x.h5``) to learn from, in place of a layout.
        test: class folders to test on.
        share: hold out this share of ``train`` as the test, where there is no ``test``.
        seed: draws that split.
        patient_pattern: regular expression that finds the patient in a tile's path.
        layout: 'NCT' or 'PCam', the layout of ``dataset_path`` to look for first.
        allow_overlap: warn where both parts have patients or tiles in common, in place of
            refusing them. The published layouts of NCT-CRC-HE and PCam are never refused.

    Raises:
        UserError: no such folders, empty class folders, classes of the test that the training
            part lacks, patients or tiles in both parts, a pattern that finds no patients, or
            no patient that could be held out.
    """
    compile_pattern(patient_pattern)  # before the tiles are looked at, which can take minutes
    if train is None:
        if dataset_path is None:
            raise UserError('no data is given', where='--dataset_path',
                            expected='a folder, or --train and --test')
        train, test = _known_layout(Path(dataset_path), layout)
    source = open_source(train)
    if test is None:
        if share is None:
            raise UserError('there is nothing to test on', where=str(train),
                            expected='--test, or --holdout with the share of tiles to hold out')
        return _held_out(source, share, seed, patient_pattern)
    other = open_source(test, source.classes)
    data = EvaluationData(source, other, source.require_classes(),
                          published=allow_overlap or Path(train).name in (NCT[0],
                                                                          PCAM_H5.format('train')))
    told = [patients(part, patient_pattern) for part in (source, other)]
    check_pattern(patient_pattern, np.concatenate(told), [*paths_of(source), *paths_of(other)])
    check_patients(data, *told)
    check_disjoint(source, other)
    check_copies(data)
    data.train_patients, data.test_patients = map(all_or_none, told)
    data.notes += _notes(data, told)
    return data


def open_source(path: str | Path, classes: list[str] | None = None) -> Source:
    """Open class folders or a PCam file and check every tile's header.

    Args:
        path: the folder, or a ``_x.h5`` file.
        classes: the only classes that may occur, in the order of their labels.
    """
    path = Path(path)
    if path.suffix in ('.h5', '.hdf5'):
        found = PCam(str(path))
        own = found.require_classes()
        if classes not in (None, own):
            raise UserError(f"its classes are {' and '.join(own)}, those of the training part "
                            f'{shorten(classes or [], 9)}', where=str(path),
                            expected='tiles of the same classes')
        return found
    if path.is_dir():
        _refuse_empty_folders(path)
    source = ImageFolder(str(path), classes=classes)
    if source.labels is None:
        raise source.fault or UserError('these tiles lie in no class folders', where=str(path),
                                        expected='one folder per class, each with its tiles')
    if len(names := source.require_classes()) < 2:
        raise UserError(f"there is only the class '{names[0]}'", where=str(path),
                        expected='at least two class folders')
    return source


def patients(source: Source, pattern: str | None) -> np.ndarray:
    """Return the patient of each tile of a source, '' where its path does not tell."""
    return patients_of(paths_of(source), pattern)


def paths_of(source: Source) -> list[str]:
    """Return what messages call each tile of a source."""
    return [source.path(i) for i in range(len(source))]


def _known_layout(folder: Path, layout: str) -> tuple[str, str]:
    if layout.lower() not in ('nct', 'pcam'):
        raise UserError(f"no layout is called '{layout}'", where='--dataset',
                        expected='NCT or PCam', nearest=nearest(layout, ('NCT', 'PCam')))
    require_folder(str(folder))
    pairs = [NCT, ('train', 'test'), tuple(PCAM_H5.format(part) for part in ('train', 'test'))]
    for first, second in pairs if layout.lower() == 'nct' else pairs[::-1]:
        have = [(folder / name).exists() or (folder / f'{name}.gz').exists()
                for name in (first, second)]
        if all(have):
            return str(folder / first), str(folder / second)
        if any(have):
            lacking = second if have[0] else first
            raise UserError(f"'{lacking}' is missing beside '{first if have[0] else second}'",
                            where=str(folder))
    found = sorted(p.name for p in folder.iterdir())[:6]
    raise UserError(f"no known layout; found {', '.join(found) or 'nothing'}", where=str(folder),
                    expected=f'{LAYOUTS}; or give --train and --test')


def _refuse_empty_folders(root: Path) -> None:
    for name in list_files(root, SUFFIXES).empty:
        raise UserError('this class folder holds no tile', where=str(root / name),
                        expected='files ending in ' + ', '.join(SUFFIXES))


def _held_out(source: Source, share: float, seed: int, pattern: str | None) -> EvaluationData:
    if not 0 < share < 1:
        raise UserError(f'{share} is no share', where='--holdout', expected='between 0 and 1')
    told = patients(source, pattern)
    check_pattern(pattern, told, paths_of(source))
    groups = all_or_none(told)
    numbers = (same_files(source)[0] if os.path.isfile(source.path(0)) else same_pixels(source))
    firsts = np.sort(np.unique(numbers, return_index=True)[1])  # one tile of each set of copies
    if groups is None:
        _, chosen = hold_out(source.require_labels()[firsts], share, seed)
        out = np.isin(numbers, numbers[firsts[chosen]])
    else:
        _, chosen = hold_out(source.require_labels(), share, seed, groups)
        out = np.isin(np.arange(len(source)), chosen)
    if not out.any():
        raise nothing_to_hold_out(source, groups)
    # A copy of a training tile tests nothing, whatever patient it is filed under.
    held, kept = np.flatnonzero(out & ~np.isin(numbers, numbers[~out])), np.flatnonzero(~out)
    if not len(held):
        raise UserError('every tile that was held out is a copy of one that was not',
                        where='--holdout', expected='patients with tiles of their own')
    data = EvaluationData(Part(source, kept), Part(source, held), source.require_classes())
    how = 'single tiles, stratified by class'
    if groups is not None:
        data.train_patients, data.test_patients = groups[kept], groups[held]
        data.shared['patients'] = 0
        how = (f'whole patients, {len(np.unique(groups[out]))} of {len(np.unique(groups))}, with '
               f'{100 * out.mean():.0f} % of the tiles')
    data.notes = [f'The test tiles were held out of one folder by seed {seed}: {how}.']
    if len(firsts) < len(source):
        data.notes.append(f'{len(source) - len(firsts)} of {len(source)} tiles are copies of '
                          f'others: no copy of a training tile is in the test ({out.sum()} tiles '
                          f'were held out, {len(held)} of them test).')
    data.notes += _notes(data, [told])
    return data


def check_patients(data: EvaluationData, train: np.ndarray, test: np.ndarray) -> None:
    """Tell the patients that both parts have; see :meth:`EvaluationData.tell_overlap`.

    Args:
        data: both parts.
        train, test: patient of each tile, '' where its path does not tell.
    """
    known = np.unique(test[test != ''])
    if not len(known) or not (train != '').any():
        return
    both = np.intersect1d(known, train)
    data.shared['patients'] = len(both)
    if len(both):
        tiles = int(np.isin(test, both).sum())
        data.tell_overlap(f'{len(both)} of {len(known)} test patients, with {tiles} of {len(test)} '
                          f'test tiles, are in the training part too: {shorten(both, 3)}')


def check_copies(data: EvaluationData) -> None:
    """Tell the files that both parts have; see :meth:`EvaluationData.tell_overlap`."""
    train, test = same_files(data.train, data.test)
    copied = np.flatnonzero(np.isin(test, train))
    data.shared['tiles'] = len(copied)
    if len(copied):
        first = int(copied[0])
        twin = int(np.flatnonzero(train == test[first])[0])
        data.tell_overlap(f'{len(copied)} of {len(test)} test tiles are byte for byte training '
                          f'tiles, such as {data.test.path(first)} and {data.train.path(twin)}')


def check_disjoint(train: Source, test: Source) -> None:
    """Refuse parts that name the same files."""
    shared = ({os.path.realpath(train.path(i)) for i in range(len(train))}
              & {os.path.realpath(test.path(i)) for i in range(len(test))})
    if shared:
        raise UserError(f'{len(shared)} tiles are in the training part and in the test',
                        where=min(shared), expected='two parts without common tiles')


def _notes(data: EvaluationData, told: Sequence[np.ndarray]) -> list[str]:
    notes, present = [], set(data.test.require_labels().tolist())
    missing = [name for label, name in enumerate(data.classes)
               if label not in present]
    if missing:
        notes.append(f"The test has no tile of {', '.join(missing)}: scores are means over the "
                     f'{len(data.classes) - len(missing)} classes it has.')
    if data.train_patients is None or data.test_patients is None:
        notes.append('WARNING: the paths tell no patients, so training and validation tiles may '
                     'come from one patient, and intervals treat tiles as independent '
                     '(--patient_pattern finds ids in paths).')
        some = sum(int((part != '').sum()) for part in told)
        if some:
            notes.append(f'{some} of {sum(map(len, told))} paths do tell a patient.')
    elif len(np.unique(data.test_patients)) == 1:
        notes.append('WARNING: all test tiles are of one patient: intervals redraw tiles and say '
                     'nothing of other patients.')
    sizes = Counter(size for part in (data.train, data.test) for size in _sizes(part))
    if len(sizes) > 1:
        common = ', '.join(f'{w} x {h} ({n})' for (w, h), n in sizes.most_common(3))
        notes.append(f'Tiles of {len(sizes)} sizes: {common}; the short side of each is resized '
                     'and its centre cropped.')
    return notes


def _sizes(source: Source) -> list[tuple[int, int]]:
    if isinstance(source, Part):
        return _sizes(source.source)
    return [(header.width, header.height) for header in source.check()]
