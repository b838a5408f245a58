"""The data sets that a config names, read and checked before anything is trained."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.prepare.annotations import Coco, Id, read_coco, shared_images
from ...datasets.prepare.report import Report
from ...errors import UserError, listed, nearest
from ...files import read_json


@dataclass(frozen=True)
class DataSet:
    """A registered data set such as ``GlaS_test``.

    Attributes:
        name: of it.
        folder: of its images.
        truth: content of its JSON, as :class:`openselfsup.datasets.prepare.annotations.Coco`
            describes it.
        subsets: ids of the images that have a JSON of their own, such as testA and testB.
    """

    name: str
    folder: Path
    truth: dict[str, Any]
    subsets: dict[str, list[Id]]


@dataclass(frozen=True)
class Wanted:
    """What a config wants of its data sets.

    Attributes:
        train: names of those to train on; none to evaluate only.
        test: names of those to evaluate on.
        classes: how many categories the model tells apart.
        masks: whether it finds masks.
        detections: how many objects it may find in an image.
    """

    train: Sequence[str]
    test: Sequence[str]
    classes: int
    masks: bool
    detections: int


def open_data_sets(folder: str | Path, wanted: Wanted) -> tuple[dict[str, DataSet], list[str]]:
    """Read and check all data sets of a config.

    Args:
        folder: the datasets folder.
        wanted: what the config says.

    Returns:
        The data sets by name, and what is odd in them.

    Raises:
        UserError: every problem of every file, in one report.
    """
    report = Report('data sets')
    read: dict[str, Coco | None] = {}
    for name in dict.fromkeys([*wanted.train, *wanted.test]):
        try:
            path = locate(folder, name)
        except UserError as error:
            report.problems.append(str(error))
            continue
        read[name] = read_coco(path, report, wanted.masks)
    good = {name: coco for name, coco in read.items() if coco is not None}
    subsets = {name: _subsets(coco, report) for name, coco in good.items() if name in wanted.test}
    _check_categories(good, wanted, report)
    for name in wanted.train:
        if name in good and not any(not a['iscrowd'] for a in good[name].truth['annotations']):
            report.problem(good[name].path, 'there is not one object to train on')
        for other in wanted.test:
            if name != other and name in good and other in good and (
                    both := shared_images(good[name], good[other])):
                report.note(name, f'{len(both)} of its images are in {other} too, such as '
                                  f'{both[0][0]}: the scores will be too good')
    for name in wanted.test:
        if name in good:
            _check_counts(good[name], wanted.detections, report)
            if wanted.masks and wanted.classes > 1:
                report.note(name, 'the scores of objects (F1, Dice, Hausdorff, AJI, PQ) do not '
                                  'look at classes; AP does')
    if report.problems:
        raise UserError(listed(f'{len(report.problems)} problems of the data sets',
                               report.problems))
    return {name: DataSet(name, coco.folder, coco.truth, subsets.get(name, {}))
            for name, coco in good.items()}, report.notes


def locate(folder: str | Path, name: str) -> Path:
    """Return the JSON of a registered data set such as ``GlaS_train`` or ``GlaS_testA``.

    Args:
        folder: the datasets folder.
        name: ``X_split`` stands for ``folder/X/annotations/split.json``.

    Raises:
        UserError: there is no such data set; what there is is named.
    """
    folder = Path(folder)
    top, _, split = name.rpartition('_')
    path = folder / top / 'annotations' / f'{split}.json'
    if not path.is_file():
        there = sorted(f'{p.parents[1].name}_{p.stem}' for p in folder.glob('*/annotations/*.json'))
        raise UserError(f"there is no data set '{name}': {path} does not exist",
                        where='--datasets-folder', nearest=nearest(name, there),
                        expected='one of ' + ', '.join(there) if there
                        else 'a folder written by openselfsup prepare')
    return path


def _subsets(coco: Coco, report: Report) -> dict[str, list[Id]]:
    """Return the image ids of ``testA.json``, ... beside ``test.json``, by name.

    A file that shares no image with ``test.json`` is another data set.
    """
    names = {i['id']: i['file_name'] for i in coco.truth['images']}
    found = {}
    for path in sorted(coco.path.parent.glob(f'{coco.path.stem}?.json')):
        try:
            ids = [(image['id'], image['file_name']) for image in read_json(path)['images']]
            strange = [f'{i!r} ({name!r})' for i, name in ids if names.get(i) != name]
        except UserError as error:
            report.problems.append(str(error))
            continue
        except (TypeError, KeyError):
            report.problem(path, f'is no COCO file of a part of {coco.path.name}')
            continue
        if ids and len(strange) == len(ids):
            report.note(path, f'has no image of {coco.path.name}: it is scored under its own name '
                              'only')
            continue
        if strange or not ids:
            report.problem(path, f'is to be a part of {coco.path.name}, and that has no image '
                                 f'{", ".join(strange[:5])}' if strange else 'names no image')
        found[path.stem] = [i for i, _ in ids]
    return found


def _check_categories(good: dict[str, Coco], wanted: Wanted, report: Report) -> None:
    """Labels of a model are places in a list of categories: one list for all data sets."""
    first: Coco | None = None
    for coco in good.values():
        own = coco.truth['categories']
        if len(own) != wanted.classes:
            report.problem(coco.path, f'has {len(own)} classes, the config {wanted.classes}; '
                           f'give MODEL.ROI_HEADS.NUM_CLASSES {len(own)}, or of RetinaNet '
                           f'MODEL.RETINANET.NUM_CLASSES {len(own)}')
        first = first or coco
        if {c['id']: c['name'] for c in own} != {
                c['id']: c['name'] for c in first.truth['categories']}:
            report.problem(coco.path, f'has other categories (ids or names) than {first.path}')


def _check_counts(coco: Coco, detections: int, report: Report) -> None:
    counts = Counter(a['image_id'] for a in coco.truth['annotations'] if not a['iscrowd'])
    many = [i['file_name'] for i in coco.truth['images'] if counts[i['id']] > detections]
    if many:
        report.note(coco.path, f'{len(many)} images such as {many[0]} have more objects than the '
                    f'{detections} of TEST.DETECTIONS_PER_IMAGE (at most {max(counts.values())}): '
                    'AP cannot become 1')
