"""Labelled tiles: lists with class names for NCT-CRC-HE, Kather 2016, PCam and any folder."""

import gzip
import random
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, listed, located
from ...files import NotWritten, read_json, write_json, write_text
from ...progress import progress
from ..headers import SUFFIXES, TileError
from ..listing import files_in, folders_below, list_class_folders, list_files, natural
from ..parallel import read_headers
from ..pcam import PCam
from ..png import write_png
from .report import Report
from .resuming import go_on_with

NCT_CLASSES = ('ADI', 'BACK', 'DEB', 'LYM', 'MUC', 'MUS', 'NORM', 'STR', 'TUM')
NCT_COUNTS = {
    'NCT-CRC-HE-100K': (10407, 10566, 11512, 11557, 8896, 13536, 8763, 10446, 14317),
    'NCT-CRC-HE-100K-NONORM': (10407, 10566, 11512, 11557, 8896, 13536, 8763, 10446, 14317),
    'CRC-VAL-HE-7K': (1338, 847, 339, 634, 1035, 592, 741, 421, 1233)}
NCT_MD5 = {'NCT-CRC-HE-100K.zip': '035777cf327776a71a05c95da6d6325f',
           'CRC-VAL-HE-7K.zip': '2fd1651b4f94ebd818ebf90ad2b6ce06'}
KATHER_CLASSES = ('TUMOR', 'STROMA', 'COMPLEX', 'LYMPHO', 'DEBRIS', 'MUCOSA', 'ADIPOSE', 'EMPTY')
_PCAM = 'camelyonpatch_level_2_split_'
PCAM_COUNTS = dict(train=262_144, valid=32_768, test=32_768)
Entry = tuple[str, int]  # path relative to the root, label


def prepare_nct(src: Path, dst: Path, report: Report, class_order: str = 'alphabetical',
                seed: int = 0) -> None:
    """Write ``dst/meta/*.txt`` for whichever of the three NCT-CRC-HE folders lie in ``src``.

    The large sets are also split into 80 % and 20 % of the tiles of each class, as PLM does.
    Training tiles carry no patient ids, so that split is one of patches.

    Args:
        src: folder that holds ``NCT-CRC-HE-100K`` and the others.
        dst: folder for ``meta/`` and ``dataset.json``.
        report: told what was written and what is odd.
        class_order: labels are 'alphabetical' (ADI 0, as CA2CL) or 'plm' (BACK 0, ADI 1).
        seed: of the split.

    Raises:
        UserError: none of the folders is there, or ``dst`` holds other lists.
    """
    _refuse_other_lists(src, dst, report)
    classes = list(NCT_CLASSES)
    if class_order == 'plm':
        classes = ['BACK', 'ADI', *classes[2:]]
    lists: dict[str, list[Entry]] = {}
    for name, counts in NCT_COUNTS.items():
        if not (src / name).is_dir():
            continue
        entries = _class_folders(src, src / name, classes, report)
        found = Counter(classes[label] for _, label in entries)
        for class_name, count in zip(NCT_CLASSES, counts):
            report.expect(f'tiles of {class_name} in {name}', found[class_name], count)
        lists[name] = entries
        if name != 'CRC-VAL-HE-7K':
            lists[f'{name}_train'], lists[f'{name}_val'] = split_by_class(entries, 0.2, seed)
    if not lists:
        raise UserError('none of the folders of NCT-CRC-HE is there', where=str(src),
                        expected='one of ' + ', '.join(NCT_COUNTS))
    report.note('NCT-CRC-HE', 'training tiles carry no patient ids: its split is one of patches')
    _write_lists(src, dst, classes, lists, report)


def prepare_kather(src: Path, dst: Path, report: Report, val: float = 0.2, seed: int = 0) -> None:
    """Write lists for Kather et al. 2016: folders ``01_TUMOR`` ... ``08_EMPTY``, or ``TUMOR`` ...

    Args:
        src: folder that holds the class folders, at any depth.
        dst, report, seed: as in :func:`prepare_nct`.
        val: share of each class in ``val.txt``.

    Raises:
        UserError: there are no such folders, or ``dst`` holds other lists.
    """
    _refuse_other_lists(src, dst, report)
    top = next((p.parent for p in folders_below(src)
                if re.fullmatch(r'(01_)?TUMOR', p.name)), None)
    if top is None:
        raise UserError('this is not the layout of Kather 2016', where=str(src),
                        expected='folders 01_TUMOR, 02_STROMA, ...')
    entries = _class_folders(src, top, list(KATHER_CLASSES), report)
    for label, count in sorted(Counter(label for _, label in entries).items()):
        report.expect(f'tiles of {KATHER_CLASSES[label]}', count, 625)
    train, held_out = split_by_class(entries, val, seed)
    _write_lists(src, dst, list(KATHER_CLASSES), dict(all=entries, train=train, val=held_out),
                 report)


def prepare_folder(src: Path, dst: Path, report: Report, val: float = 0.2, seed: int = 0) -> None:
    """Write lists for any folder of tiles, labelled where they lie in class folders.

    Class folders lie in ``src``, or in the one folder that it holds, as archives have it.

    Args:
        src: folder of tiles, at any depth.
        dst, report, val, seed: as in :func:`prepare_kather`.

    Raises:
        UserError: there is not one tile, tiles lie beside class folders, or ``dst`` holds other
            lists.
    """
    _refuse_other_lists(src, dst, report)
    top = src
    listing, names = list_class_folders(top, SUFFIXES)
    while list(listing.by_folder()) == names[:1] and any(
            path.count('/') > 1 for path in listing.paths):
        top /= names[0]
        listing, names = list_class_folders(top, SUFFIXES)
    if top != src:
        report.note(top, 'all tiles lie in this folder: its folders are the classes')
    loose = listing.by_folder().get('', [])
    if names and loose:
        raise UserError(listed(f'{len(loose)} tiles lie beside the class folders (all must lie in '
                               'one, or none)', loose), where=located(top))
    if names:
        entries = _class_folders(src, top, names, report)
    else:
        entries = _usable(src, [(src / path, 0) for path in listing.paths], report)
    if there := listing.passed_over():
        report.note(src, f'passed over: {there}')
    if not entries:
        raise UserError('there is not one tile', where=located(src),
                        expected='files ending in ' + ', '.join(SUFFIXES)
                                 + (f' (there are: {there})' if there else ''))
    train, held_out = split_by_class(entries, val, seed)
    _write_lists(src, dst, names, dict(all=entries, train=train, val=held_out), report)


def prepare_pcam(src: Path, dst: Path, report: Report) -> None:
    """Write PCam's HDF5 tiles as ``dst/{train,valid,test}/{neg,pos}/N.png``, and their lists.

    Args:
        src: folder of ``camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5`` (or .h5.gz).
        dst: where to write; tiles that are there already stay.
        report: told what was written and what is odd.

    Raises:
        UserError: no split is complete and readable, a packed file is damaged, or ``dst`` holds
            other lists or tiles of other files.
    """
    _refuse_other_lists(dst, dst, report)
    found = {path.name.removesuffix('.gz'): path  # the plain one of two
             for path in sorted(files_in(src, ('.h5', '.gz'), deep=True)[::-1],
                                key=lambda path: path.suffix == '.h5')
             if path.name.startswith(_PCAM)}
    whole = [split for split in PCAM_COUNTS
             if all(f'{_PCAM}{split}_{part}.h5' in found for part in 'xy')]
    if not whole:
        raise _no_pcam(src)
    go_on_with(dst / 'options_pcam.json', {}, src, found.values(), lambda file: (
        (dst / file.name.removeprefix(_PCAM).partition('_')[0]).exists()
        or _unpacked_to(file, dst).exists()))
    classes, lists = ['neg', 'pos'], {}
    for split, count in PCAM_COUNTS.items():
        if split not in whole:
            report.note(src, f'{split} is not complete; passed over')
            continue
        x, y = (_unpacked(found[f'{_PCAM}{split}_{part}.h5'], dst) for part in 'xy')
        try:
            source = PCam(str(x), str(y))
            report.expect(f'{split} tiles', len(source), count)
            entries = [(f'{split}/{classes[label]}/{i:06d}.png', label)
                       for i, label in enumerate(source.require_labels().tolist())]
            for i, (path, _) in enumerate(progress(entries, f'PCam {split}')):
                if not (dst / path).exists():
                    write_png(dst / path, source.read(i))
        except NotWritten:  # no fault of this split
            raise
        except UserError as error:
            report.problems.append(f'{error}; {split} is left out')
            continue
        lists[split] = entries
    if not lists:
        raise _no_pcam(src)
    _write_lists(dst, dst, classes, lists, report)


def _no_pcam(src: Path) -> UserError:
    return UserError('this is not the layout of PCam', where=str(src),
                     expected='camelyonpatch_level_2_split_train_x.h5, ..._y.h5, ...')


def _unpacked_to(packed: Path, dst: Path) -> Path:
    return dst / '.unpacked' / packed.stem


def _unpacked(packed: Path, dst: Path) -> Path:
    """Return a file, unpacked below ``dst`` if it is compressed."""
    if packed.suffix != '.gz':
        return packed
    unpacked = _unpacked_to(packed, dst)
    if not unpacked.exists():
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        part_file = unpacked.with_suffix('.part')
        try:
            with gzip.open(packed) as source, open(part_file, 'wb') as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            part_file.unlink()
            raise UserError(f'the file is damaged or cut off ({error})', where=str(packed),
                            expected='a whole copy of it') from None
        part_file.replace(unpacked)
    return unpacked


def split_by_class(entries: Sequence[Entry], share: float,
                   seed: int) -> tuple[list[Entry], list[Entry]]:
    """Split into (rest, share), the same share of each class, at random but reproducibly."""
    held_out: set[str] = set()
    for label in sorted({label for _, label in entries}):
        paths = sorted(path for path, own in entries if own == label)
        random.Random(seed * 1000 + label).shuffle(paths)
        held_out.update(paths[:round(share * len(paths))])
    return ([e for e in entries if e[0] not in held_out], [e for e in entries if e[0] in held_out])


def _class_folders(root: Path, top: Path, classes: list[str], report: Report) -> list[Entry]:
    """List the tiles of class folders; a folder of an unknown class is a problem."""
    found = []
    for folder, paths in list_files(top, SUFFIXES).by_folder().items():
        # Kather's folders are numbered; where the class itself is called 01_X, it is that.
        name = folder if folder in classes else re.sub(r'^\d\d_', '', folder)
        if name in classes:
            found += [(top / path, classes.index(name)) for path in sorted(paths, key=natural)]
        elif folder:
            report.problem(top / folder, f"'{name}' is none of the classes {', '.join(classes)}")
    counts = Counter(classes[label] for _, label in found)
    report.facts[f'{top.name} by class'] = ', '.join(f'{c} {counts[c]}' for c in classes)
    return _usable(root, found, report)


def _usable(root: Path, found: list[tuple[Path, int]], report: Report) -> list[Entry]:
    headers = read_headers([str(path) for path, _ in found])
    report.problems += [str(h) for h in headers if isinstance(h, TileError)]
    return [(path.relative_to(root).as_posix(), label) for (path, label), header
            in zip(found, headers) if not isinstance(header, TileError)]


def _refuse_other_lists(root: Path, dst: Path, report: Report) -> None:
    """Raise UserError, before any work, if a folder holds the lists of other tiles."""
    about, here = dst / 'dataset.json', (report.name, str(root.resolve()))
    if about.exists() and (there := tuple(map(read_json(about).get, ('name', 'root')))) != here:
        raise UserError(f"this folder holds the lists of {' in '.join(map(str, there))}, not of "
                        f"{' in '.join(here)}", where=str(about),
                        expected='another DST, or this one without that file')


def _write_lists(root: Path, dst: Path, classes: list[str], lists: dict[str, list[Entry]],
                 report: Report) -> None:
    for name, entries in lists.items():
        lines = [f'{path} {label}' if classes else path for path, label in entries]
        write_text(dst / 'meta' / f'{name}.txt', '\n'.join(lines) + '\n')
        report.facts[f'meta/{name}.txt'] = f'{len(entries)} tiles'
    write_json(dst / 'dataset.json', dict(
        name=report.name, root=str(root.resolve()), classes=classes,
        lists={name: len(entries) for name, entries in lists.items()}))
