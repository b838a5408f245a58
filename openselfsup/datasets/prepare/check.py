"""Is a prepared folder whole and consistent?"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import UserError
from ..headers import TileError
from ..scan import scan_headers
from ..sources import ImageList
from .annotations import read_coco, shared_images
from .bcss import IGNORE
from .files import files_in, progress, read_json
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
    if read.get('train') and read.get('test'):
        for train, test in shared_images(read['train'], read['test']):
            report.problem(folder, f'train/{train} and test/{test} are the same image')


def check_semantic(folder: Path, report: Report) -> None:
    """Check tiles with masks: pairs are complete, sizes agree, codes are classes or ignored."""
    classes = read_json(folder / 'classes.json')['classes']
    allowed = {*range(len(classes)), IGNORE}
    for split in ('train', 'val', 'test'):
        images = {p.name: p for p in files_in(folder / split / 'images', ('.png',))}
        masks = {p.name: p for p in files_in(folder / split / 'masks', ('.png',))}
        for name in sorted(set(images) ^ set(masks)):
            report.problem(folder / split / name, 'image or mask is missing')
        pixels = Counter()
        for name in progress(sorted(set(images) & set(masks)), f'checking {split}'):
            with Image.open(images[name]) as image, Image.open(masks[name]) as mask:
                if image.size != mask.size:
                    report.problem(masks[name], f'is {mask.size}, its image {image.size}')
                codes, counts = np.unique(np.asarray(mask), return_counts=True)
            pixels.update(dict(zip(codes.tolist(), counts.tolist())))
            if wrong := set(codes.tolist()) - allowed:
                report.problem(masks[name], f'holds codes {sorted(wrong)} of no class')
        total = sum(n for code, n in pixels.items() if code != IGNORE)
        shares = ', '.join(f'{c} {pixels[i] / total:.1%}' for i, c in enumerate(classes)
                           if pixels[i]) if total else ''
        report.facts[split] = f'{len(masks)} tiles: {shares}'


def check_lists(folder: Path, report: Report) -> None:
    """Check lists of tiles: every tile exists, labels are classes, train and val are apart."""
    about = read_json(folder / 'dataset.json')
    paths = {}
    for name in about['lists']:
        source = ImageList(str(folder / 'meta' / f'{name}.txt'), about['root'],
                           about['classes'] or None)
        paths[name] = set(source.paths)
        report.problems += [str(h) for h in scan_headers(source.paths)
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
    for row, header in zip(rows, scan_headers([str(folder / row['file']) for row in rows])):
        if isinstance(header, TileError):
            report.problems.append(str(header))
        elif {header.height, header.width} != {int(row['size'])}:
            report.problem(row['file'], f'is {header.width} x {header.height} px, '
                                        f"tiles.csv says {row['size']}")
    report.facts.update(slides=len({row['slide'] for row in rows}), tiles=len(rows))
