"""Is a prepared folder whole and consistent?"""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import UserError
from ..headers import TileError
from ..scan import scan_headers
from ..sources import ImageList
from .bcss import IGNORE
from .files import files_in, progress, read_json
from .instances import decode
from .report import Report


def check_coco(folder: Path, report: Report) -> None:
    """Check every JSON of a COCO dataset against its images.

    Images exist with the size that is stated, ids are unique and refer to each other, masks
    decode to that size, are not empty and agree with their box and area, and no image is in
    both train and test.
    """
    jsons = sorted((folder / 'annotations').glob('*.json'))
    if not jsons:
        raise UserError('there are no annotations', where=str(folder),
                        expected='annotations/train.json, annotations/test.json')
    digests: dict[str, dict[str, str]] = {}
    for path in jsons:
        content = read_json(path)
        if missing := {'images', 'annotations', 'categories', 'info'} - set(content):
            report.problem(path, f"lacks {', '.join(sorted(missing))}")
            continue
        _check_ids(path, content, report)
        split = content['info'].get('image_folder', path.stem)
        sizes = {i['id']: _check_image(folder / split / i['file_name'], i, report)
                 for i in content['images']}
        for annotation in progress(content['annotations'], f'checking {path.name}'):
            if sizes.get(annotation['image_id']):
                _check_mask(path, annotation, *sizes[annotation['image_id']], report)
        digests.setdefault(split, {}).update(
            {hashlib.sha256((folder / split / i['file_name']).read_bytes()).hexdigest():
             i['file_name'] for i in content['images'] if sizes[i['id']]})
        report.facts[path.name] = (f"{len(content['images'])} images, "
                                   f"{len(content['annotations'])} objects")
    for digest in set(digests.get('train', {})) & set(digests.get('test', {})):
        report.problem(folder, f"train/{digests['train'][digest]} and "
                               f"test/{digests['test'][digest]} are the same image")


def _check_ids(path: Path, content: dict, report: Report) -> None:
    for kind in ('images', 'annotations'):
        twice = [i for i, n in Counter(e['id'] for e in content[kind]).items() if n > 1]
        if twice:
            report.problem(path, f'{kind} ids {twice[:5]} occur more than once')
    images = {i['id'] for i in content['images']}
    categories = {c['id'] for c in content['categories']}
    for annotation in content['annotations']:
        if annotation['image_id'] not in images:
            report.problem(path, f"annotation {annotation['id']} is of no image")
        if annotation['category_id'] not in categories:
            report.problem(path, f"annotation {annotation['id']} is of no category")


def _check_image(path: Path, entry: dict, report: Report) -> tuple[int, int] | None:
    found = scan_headers([str(path)])[0]
    if isinstance(found, TileError):
        report.problems.append(str(found))
        return None
    if (found.height, found.width) != (entry['height'], entry['width']):
        report.problem(path, f"is {found.width} x {found.height} px, the JSON says "
                             f"{entry['width']} x {entry['height']}")
        return None
    return found.height, found.width


def _check_mask(path: Path, annotation: dict, height: int, width: int, report: Report) -> None:
    name = f"annotation {annotation['id']}"
    segmentation = annotation['segmentation']
    if isinstance(segmentation, dict) and list(segmentation['size']) != [height, width]:
        report.problem(path, f"{name} has a mask of size {segmentation['size']}")
        return
    mask = decode(segmentation, height, width)
    if not mask.any():
        report.problem(path, f'{name} has an empty mask')
        return
    if not isinstance(segmentation, dict):
        return  # polygons round, and fill holes: box and area are those of the exact mask
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    if not np.allclose(annotation['bbox'], box):
        report.problem(path, f"{name} has box {annotation['bbox']}, its mask {box}")
    if annotation['area'] != mask.sum():
        report.problem(path, f"{name} has area {annotation['area']}, its mask {mask.sum()}")


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
