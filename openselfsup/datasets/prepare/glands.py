"""GlaS (Warwick-QU) and CRAG: glands with instance ids."""

import re
from pathlib import Path

from ...errors import UserError, located, nearest
from ..listing import files_in, folders_below
from .coco import Pair, write_split
from .report import Report
from .synthetic import MARKER

IMAGES = ('.bmp', '.png', '.tif', '.tiff', '.jpg', '.jpeg')
GLAS_COUNTS = dict(train=85, testA=60, testB=20)
CRAG_COUNTS = dict(train=173, test=40)


def prepare_glas(src: Path, dst: Path, report: Report, masks: str = 'rle') -> None:
    """Prepare GlaS: ``dst/GlaS/{train,test}`` and JSON for train, test, testA and testB.

    Args:
        src: folder with ``{train,testA,testB}_N.bmp`` and ``..._anno.bmp``, at any depth.
        dst: folder of datasets.
        report: told what was written and what is odd.
        masks: 'rle' or 'polygon'.

    Raises:
        UserError: there are no such files.
    """
    labels = by_stem([p for p in files_in(src, IMAGES, deep=True) if p.stem.endswith('_anno')],
                     report)
    labels = {stem.removesuffix('_anno'): path for stem, path in labels.items()}
    found: dict[str, list[Pair]] = {name: [] for name in GLAS_COUNTS}
    for image in files_in(src, IMAGES, deep=True):
        match = re.fullmatch(r'(train|testA|testB)_\d+', image.stem)
        if match and (label := labels.pop(image.stem, None)):
            found[match[1]].append(Pair(image, label, match[1] if match[1] != 'train' else ''))
        elif match:
            report.problem(image, f'its labels {image.stem}_anno.bmp are missing; left out')
    for label in labels.values():
        report.problem(label, f"its image {label.stem.removesuffix('_anno')} is missing")
    if not found['train'] or not (found['testA'] or found['testB']):
        raise UserError('this is not the layout of GlaS', where=str(src),
                        expected='train_1.bmp, train_1_anno.bmp, testA_1.bmp, ...')
    if not any(src.rglob(MARKER)):
        for name, count in GLAS_COUNTS.items():
            report.expect(f'{name} images', len(found[name]), count)
    folder = dst / 'GlaS'
    write_split(found['train'], folder, 'train', 'gland', report, masks)
    write_split(found['testA'] + found['testB'], folder, 'test', 'gland', report, masks)


def prepare_crag(src: Path, dst: Path, report: Report, masks: str = 'rle') -> None:
    """Prepare CRAG: ``dst/CRAG/{train,test}`` and their JSON.

    Args:
        src: folder with ``train/`` and ``test/`` (or ``valid/``), each with ``Images/`` and
            ``Annotation/`` (or ``Annotations/``) of equally named files.
        dst, report, masks: as in :func:`prepare_glas`.

    Raises:
        UserError: there are no such folders.
    """
    for split, names in dict(train=('train',), test=('test', 'valid')).items():
        top = _subfolder(src, names)
        if others := [path.name for path in folders_below(top.parent)[1:]
                      if path.parent == top.parent and path != top and path.name.lower() in names]:
            report.note(top.parent, f'{", ".join(others)} passed over: {split} is {top.name}')
        images = files_in(_subfolder(top, ('Images', 'Image')), IMAGES)
        labels = by_stem(files_in(_subfolder(top, ('Annotation', 'Annotations')), IMAGES), report)
        pairs = pair_up(images, labels, report)
        report.expect(f'{split} images', len(pairs), CRAG_COUNTS[split])
        write_split(pairs, dst / 'CRAG', split, 'gland', report, masks)


def by_stem(paths: list[Path], report: Report) -> dict[str, Path]:
    """Return paths by their stem; those that share one become problems and are left out."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.stem, []).append(path)
    for same in found.values():
        if len(same) > 1:
            report.problem(same[0], 'has the name of '
                           + ', '.join(map(str, same[1:])) + '; all are left out')
    return {stem: same[0] for stem, same in found.items() if len(same) == 1}


def pair_up(images: list[Path], labels: dict[str, Path], report: Report,
            subset: str = '') -> list[Pair]:
    """Pair images and labels by their stem; what is left alone becomes a problem."""
    labels = dict(labels)
    pairs = []
    for stem, image in by_stem(images, report).items():
        label = labels.pop(stem, None)
        if label is None:
            report.problem(image, 'its labels are missing; left out')
        else:
            pairs.append(Pair(image, label, subset))
    for label in labels.values():
        report.problem(label, 'its image is missing')
    return pairs


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the first folder of one of the names, whatever their case, at any depth."""
    below = sorted(folders_below(folder)[1:], key=lambda path: len(path.parts))
    for depth in sorted({len(path.parts) for path in below}):
        for name in names:
            for path in below:
                if len(path.parts) == depth and path.name.lower() == name.lower():
                    return path
    inside = [path.name for path in below]
    raise UserError(f"no folder '{names[0]}' in it", where=located(folder),
                    expected=' or '.join(names), nearest=nearest(names[0], inside))
