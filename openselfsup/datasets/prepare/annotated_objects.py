"""The objects of a COCO file: masks, boxes and areas that agree, or a finding that says why not."""

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pycocotools import mask as coco_mask

from ...errors import UserError
from .instances import run_lengths
from .report import Report

Id = int | str
_NAMED = 5  # places that a line of the report names
_BOX_ERROR = 2.0  # pixels between a box and the box of its mask: some count from 1, some round


class Place(NamedTuple):
    """An entry of the file and how to find it."""

    name: str
    entry: dict


class Findings:
    """What was found, by kind: thirty thousand times the same makes one line."""

    def __init__(self):
        self.problems: dict[str, list[str]] = defaultdict(list)
        self.notes: dict[str, list[str]] = defaultdict(list)

    def write(self, path: Path, report: Report) -> None:
        """Tell the report of everything, a line for each kind."""
        for kinds, tell in ((self.problems, report.problem), (self.notes, report.note)):
            for kind, places in kinds.items():
                more = f' and {len(places) - _NAMED} more' if len(places) > _NAMED else ''
                tell(path, f"{', '.join(places[:_NAMED])}{more}: {kind}")


def read_objects(objects: Iterable[Place], images: dict[Id, dict], masks: bool,
             found: Findings) -> list[dict]:
    """Return the objects whose masks are in order, numbered from 1.

    Args:
        objects: entries of images and categories that are there.
        images: ``id``, ``height``, ``width`` of the images in order, by id.
        masks: objects need masks; otherwise a missing one is the object's box.
        found: gets what was mended and what is wrong.
    """
    clean: list[dict] = []
    seen: dict[tuple, str] = {}
    for place, entry in objects:
        crowd = entry.get('iscrowd', 0)
        if 'iscrowd' not in entry:
            found.notes['the missing iscrowd is taken as 0'].append(place)
        if crowd not in (0, 1) or entry.get('ignore', 0) not in (0, crowd):
            found.problems['iscrowd must be 0 or 1, and ignore is not known'].append(place)
            continue
        image = images.get(entry['image_id'])
        made = image and _object(entry, image, masks, place, found)
        if not image or not made:
            continue
        same = (image['id'], entry['category_id'], crowd, made['segmentation']['counts'])
        if same in seen:
            found.notes['has the mask and category of another object; it counts once'].append(
                f'{place} as {seen[same]}')
            continue
        seen[same] = place
        category = entry['category_id']
        clean.append(dict(
            id=len(clean) + 1, image_id=image['id'], iscrowd=int(crowd),
            category_id=int(category) if isinstance(category, float) else category, **made))
    return clean


def _object(entry: dict, image: dict, masks: bool, place: str, found: Findings) -> dict | None:
    """Return mask, box and area of an object, None where they cannot be had."""
    height, width = image['height'], image['width']
    box, segmentation = entry.get('bbox'), entry.get('segmentation')
    if box is not None and not _is_box(box):
        found.problems['its bbox must be x, y, width, height: finite, not negative'].append(place)
        return None
    if not segmentation:
        if masks or not box:
            found.problems['has no segmentation'].append(place)
            return None
        x, y, w, h = box
        segmentation = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    try:
        rle = run_lengths(segmentation, height, width)
    except UserError as error:
        found.problems[str(error)].append(place)
        return None
    area, own = float(coco_mask.area(rle)), [float(v) for v in coco_mask.toBbox(rle)]
    if not area:
        found.problems[f'its mask is empty, or lies outside of {width} x {height} px'].append(place)
        return None
    if box is None:
        found.notes['the missing bbox is that of the mask'].append(place)
    elif _distance(box, own, height, width) > _BOX_ERROR:
        found.problems['its bbox (x, y, width, height) is not that of its mask'].append(
            f'{place}: {box}, not {own}')
        return None
    stated = entry.get('area')
    if 'area' not in entry:
        found.notes['the missing area is that of the mask'].append(place)
    elif type(stated) not in (int, float) or stated != area and isinstance(segmentation, dict):
        found.notes['has area other than its mask, whose area counts'].append(
            f'{place}: {stated!r}, not {area:g}')
    return dict(bbox=own, area=area, segmentation=rle)


def _is_box(box: object) -> bool:
    return (isinstance(box, list) and len(box) == 4 and all(
        type(v) in (int, float) and abs(v) < 1e9 and math.isfinite(v) for v in box)
        and min(box[2:]) >= 0)


def _distance(box: list, other: list, height: int, width: int) -> float:
    """Return how far the sides of two boxes are apart at most, within the image, in pixels."""
    sides = [(b[0], b[1], b[0] + b[2], b[1] + b[3]) for b in (box, other)]
    limits = (width, height, width, height)
    return max(abs(min(max(a, 0), limit) - b) for a, b, limit in zip(*sides, limits))
