"""Is a prepared folder whole and consistent?"""

import csv
from pathlib import Path

from ...errors import UserError
from ...files import read_json
from ..headers import TileError
from ..parallel import read_headers
from ..sources import ImageList
from .annotations import read_coco, shared_images
from .bcss import IGNORE
from .mask_codes import CodeTable
from .mask_folders import judge, pair_masks, survey
from .report import Report


def check_coco(folder: Path, report: Report) -> None:
    """Check every JSON of a COCO dataset against its images, as training does before it starts.

    See :func:`openselfsup.datasets.prepare.annotations.read_coco`; besides, no image may be in
    both train and test.
    """
    jsons = sorted((folder / 'annotations').glob('*.json'))
    if not jsons:
        raise UserError('there are no annotations', where=str(folder),
                        expected='annotations/train.json, annotations/test.json')
    read = {path.stem: read_coco(path, report) for path in jsons}
    if (first := read.get('train')) and (second := read.get('test')):
        for train, test in shared_images(first, second):
            report.problem(folder, f'train/{train} and test/{test} are the same image')


def check_semantic(folder: Path, report: Report) -> None:
    """Check tiles with masks: pairs are complete, sizes agree, codes are classes or ignored."""
    about = read_json(folder / 'classes.json')
    if not isinstance(about, dict) or not isinstance(about.get('classes'), list):
        raise UserError("holds no list 'classes'", where=str(folder / 'classes.json'))
    table = CodeTable(about['classes'], about.get('ignore_index', IGNORE))
    found = {}
    for split in ('train', 'val', 'test'):
        try:
            pairs = pair_masks(folder / split / 'images', folder / split / 'masks', report)
        except UserError as error:
            report.problems.append(str(error))
            continue
        found[split] = survey(pairs, table, split, report)
    if {'train', 'test'} <= set(found):
        judge(found['train'], found['test'], table, report)


def check_lists(folder: Path, report: Report) -> None:
    """Check lists of tiles: every tile exists, labels are classes, train and val are apart."""
    about = read_json(folder / 'dataset.json')
    paths = {}
    for name in about['lists']:
        source = ImageList(str(folder / 'meta' / f'{name}.txt'), about['root'],
                           about['classes'] or None)
        paths[name] = set(source.paths)
        report.problems += [str(h) for h in read_headers(source.paths)
                            if isinstance(h, TileError)]
        report.facts[f'meta/{name}.txt'] = f'{len(source)} tiles'
    for name in paths:
        other = name.removesuffix('train') + 'val'
        if name.endswith('train') and (both := paths[name] & paths.get(other, set())):
            report.problem(folder / 'meta', f'{len(both)} tiles are in {name} and in {other}')


def check_slides(folder: Path, report: Report) -> None:
    """Check tiles of slides: every line of ``tiles.csv`` has its tile, of the stated size."""
    try:
        with open(folder / 'tiles.csv', encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(error.strerror or str(error), where=str(folder / 'tiles.csv')) from None
    for row, header in zip(rows, read_headers([str(folder / row['file']) for row in rows])):
        if isinstance(header, TileError):
            report.problems.append(str(header))
        elif {header.height, header.width} != {int(row['size'])}:
            report.problem(row['file'], f'is {header.width} x {header.height} px, '
                                        f"tiles.csv says {row['size']}")
    report.facts.update(slides=len({row['slide'] for row in rows}), tiles=len(rows))
