"""Pairs of image and instance map to the folder of a COCO dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from ...files import copy_file, write_json
from ...progress import progress
from ..decode import read_tile
from ..headers import read_header
from .instances import annotations_of, pieces, read_instance_map
from .report import Report


class Pair(NamedTuple):
    """An image, its instance ids, and the subset it belongs to ('' for none)."""

    image: Path
    label: Path
    subset: str = ''


def write_split(pairs: Sequence[Pair], folder: Path, split: str, category: str, report: Report,
                masks: str = 'rle') -> None:
    """Write ``folder/split/`` with the images and ``folder/annotations/split.json``.

    Image ids are 1, 2, ... in the order of the pairs. Each subset gets a JSON of its own with
    the same ids. Pairs that cannot be used become problems of the report; a complete image
    that is there already is not copied again.
    """
    images, annotations, subset_of = [], [], {}
    for image_id, pair in enumerate(progress(pairs, f'{report.name} {split}'), 1):
        try:
            height, width = _size(pair.image)
            ids = read_instance_map(pair.label)
        except UserError as error:
            report.problems.append(str(error))
            continue
        if ids.shape != (height, width):
            report.problem(pair.label, f'is {ids.shape[1]} x {ids.shape[0]} px, its image '
                                       f'{pair.image.name} is {width} x {height}; left out')
            continue
        if not ids.any():
            report.note(pair.label, 'has no object')
        for instance, count in pieces(ids).items():
            report.note(pair.label, f'object {instance} lies in {count} pieces (kept as one)')
        copy_file(pair.image, folder / split / pair.image.name)
        images.append(dict(id=image_id, file_name=pair.image.name, height=height, width=width))
        annotations += annotations_of(ids, image_id, masks)
        subset_of[image_id] = pair.subset
    if not images:
        raise UserError(f'not one usable image for {split}; {report}', where=str(folder))
    report.facts[split] = f'{len(images)} images, {len(annotations)} objects'
    for name in sorted({split} | set(subset_of.values()) - {''}):
        chosen = {i for i, subset in subset_of.items() if name in (split, subset)}
        write_json(folder / 'annotations' / f'{name}.json', dict(
            info=dict(description=f'{report.name} {name}', image_folder=split),
            categories=[dict(id=1, name=category, supercategory=category)],
            images=[i for i in images if i['id'] in chosen],
            annotations=[a for a in annotations if a['image_id'] in chosen]))


def _size(path: Path) -> tuple[int, int]:
    """Return height and width of an image; compressed ones are decoded to see that they can be.

    Raises:
        TileError: the image cannot be used.
    """
    header = read_header(path)
    if header.format in ('PNG', 'JPEG'):
        read_tile(path)
    return header.height, header.width
