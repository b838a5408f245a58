"""A COCO file of objects: read whole, mended where nothing is guessed, or refused in one report.

Training, scoring and ``openselfsup prepare --check`` all read through :func:`read_coco`.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from ...errors import UserError
from ...files import read_json
from ...progress import progress
from ..headers import TileError
from ..parallel import read_headers
from .annotated_objects import Findings, Id, Place, read_objects
from .report import Report


class Coco(NamedTuple):
    """What of a COCO file is in order.

    Attributes:
        path: of the JSON.
        folder: of its images.
        truth: ``info``, ``categories`` (``id``, ``name``), ``images`` (``id``, ``file_name``,
            ``height``, ``width``) and ``annotations``, each with all of ``id`` (1, 2, ...),
            ``image_id``, ``category_id``, ``iscrowd`` (0 or 1), ``bbox`` and ``area`` of the mask
            and ``segmentation`` (compressed run lengths of the image's size, not empty). Ids of
            images and categories are those of the file, integers or text.
    """

    path: Path
    folder: Path
    truth: dict[str, Any]


def read_coco(path: Path, report: Report, masks: bool = True) -> Coco | None:
    """Read ``X/annotations/split.json`` and look at every image and object that it names.

    The images lie in ``X/split``, or in ``X/`` and what ``info.image_folder`` says. Without a
    guess are mended, and noted: a missing ``iscrowd`` (0), box, area or annotation id, missing
    image sizes, an area that is not that of the mask, back slashes in file names, objects that
    are written twice.

    Args:
        path: the JSON.
        report: gets facts, notes of what was mended or is odd, and every problem with its place.
        masks: objects need masks; otherwise a missing one is the object's box.

    Returns:
        Whatever is in order, which is all of it where the report got no problem; None where
        nothing could be read.
    """
    try:
        content = read_json(path)
    except UserError as error:
        report.problems.append(str(error))
        return None
    lists: dict[str, Any] = {key: content.get(key) if isinstance(content, dict) else None
                             for key in ('images', 'annotations', 'categories')}
    wrong = [key for key, found in lists.items() if not isinstance(found, list)
             or not all(isinstance(entry, dict) for entry in found)]
    if wrong:
        report.problem(path, f"{', '.join(wrong)}: missing, or no list of objects; is it a COCO "
                             'file of instances?')
        return None
    found = Findings()
    categories = _categories(lists['categories'], found)
    stated = content.get('info')
    info = stated if isinstance(stated, dict) else {}
    folder = path.parents[1] / str(info.get('image_folder', path.stem))
    named = _by_id(lists['images'], 'images', found)
    if not named:
        found.problems['there is no image'].append('images')
    images = _images(named, folder, found, report)
    objects = [Place(f'annotations[{index}]', entry)
               for index, entry in enumerate(lists['annotations'])]
    objects = _references(objects, named, categories, found)
    annotations = read_objects(progress(objects, f'checking {path.name}'), images, masks, found)
    found.write(path, report)
    single = [a for a in annotations if not a['iscrowd']]
    report.facts[path.name] = f"{len(lists['images'])} images, {len(lists['annotations'])} objects"
    if empty := len(images) - len({a['image_id'] for a in single}):
        report.note(path, f'{empty} of {len(images)} images have no object')
    present = {a['category_id'] for a in single}
    if never := [c['name'] for i, c in categories.items() if i not in present]:
        report.note(path, f'no object is of category {", ".join(map(repr, never))}')
    return Coco(path, folder, dict(info=info, categories=list(categories.values()),
                                   images=list(images.values()), annotations=annotations))


def shared_images(first: Coco, second: Coco) -> list[tuple[str, str]]:
    """Return the file names of equal images of two files, byte by byte the same."""
    by_digest = {digest: name for name, digest in _digests(first, second)}
    return [(by_digest[digest], name) for name, digest in _digests(second, first)
            if digest in by_digest]


def _digests(own: Coco, other: Coco) -> Iterable[tuple[str, str]]:
    """Yield name and digest of the images whose length in bytes occurs in the other file too."""
    lengths = {os.path.getsize(other.folder / i['file_name']) for i in other.truth['images']}
    for image in own.truth['images']:
        path = own.folder / image['file_name']
        if os.path.getsize(path) in lengths:
            yield image['file_name'], hashlib.sha256(path.read_bytes()).hexdigest()


def _is_id(value: object) -> TypeGuard[Id]:
    """Whether it is an id; 3.0 is, and finds what 3 does."""
    return isinstance(value, (int, str)) and not isinstance(value, bool) or (
        isinstance(value, float) and value.is_integer())


def _by_id(entries: list[dict], what: str, found: Findings) -> dict[Id, Place]:
    """Return place and entry by id; what has none, or that of another, is a problem."""
    named: dict[Id, Place] = {}
    for index, entry in enumerate(entries):
        own, place = entry.get('id'), f'{what}[{index}]'
        if not _is_id(own):
            found.problems['needs an id, an integer or text'].append(place)
        elif own in named:
            found.problems[f'has the id of another of the {what}'].append(f'{place} (id {own!r})')
        else:
            key = int(own) if isinstance(own, float) else own
            named[key] = Place(f'{place} (id {own!r})', entry)
    return named


def _categories(entries: list[dict], found: Findings) -> dict[Id, dict]:
    named = _by_id(entries, 'categories', found)
    if not entries:
        found.problems['there is no category'].append('categories')
    return {i: dict(id=i, name=entry['name'] if isinstance(entry.get('name'), str) else str(i))
            for i, (_, entry) in named.items()}


def _images(named: dict[Id, Place], folder: Path, found: Findings,
            report: Report) -> dict[Id, dict]:
    """Return the images that are there and have the size that is stated, by id."""
    names: dict[Id, str] = {}
    for i, (place, entry) in named.items():
        name = entry.get('file_name')
        if not _is_name(name):
            found.problems['needs a file_name'].append(place)
            continue
        if '\\' in name and not (folder / name).exists():
            slashes = name.replace('\\', '/')
            if (folder / slashes).exists():
                found.notes['back slashes in file_name are taken as /'].append(place)
                name = slashes
        if name in names.values():
            found.problems['has the file_name of another image'].append(f'{place} {name!r}')
            continue
        names[i] = name
    images = {}
    headers = read_headers([str(folder / name) for name in names.values()])
    for (i, name), header in zip(names.items(), headers):
        place, entry = named[i]
        if isinstance(header, TileError):
            report.problems.append(f'{header} ({place} of {folder.name})')
            continue
        size = {}
        for side, real in (('height', header.height), ('width', header.width)):
            size[side] = entry.get(side, real)
            if side not in entry:
                found.notes[f'the missing {side} is that of the file'].append(place)
        if size != dict(height=header.height, width=header.width):
            found.problems['the file has another size than the JSON says: its masks would be '
                           'displaced'].append(
                f"{place} {name!r} is {header.width} x {header.height} px, not "
                f"{size['width']!r} x {size['height']!r}")
            continue
        images[i] = dict(id=i, file_name=name, height=header.height, width=header.width)
    return images


def _is_name(name: object) -> TypeGuard[str]:
    if not isinstance(name, str) or not name or '\0' in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _references(objects: list[Place], images: dict[Id, Place], categories: dict[Id, dict],
                found: Findings) -> list[Place]:
    """Return the objects of images and categories that are there."""
    kept, ids = [], set()
    for place, entry in objects:
        own, image_id, category_id = (entry.get(k) for k in ('id', 'image_id', 'category_id'))
        if 'id' in entry:
            place += f' (id {own!r})'
        if not _is_id(own) or own in ids:
            found.notes['has no id of its own, and needs none'].append(place)
        else:
            ids.add(own)
        if not _is_id(image_id) or image_id not in images:
            found.problems['is of no image'].append(f'{place} of image {image_id!r}')
            continue
        place += f" of {images[image_id].entry.get('file_name')!r}"
        if not _is_id(category_id) or category_id not in categories:
            found.problems['is of no category'].append(f'{place}, category {category_id!r}')
            continue
        kept.append(Place(place, entry))
    return kept
