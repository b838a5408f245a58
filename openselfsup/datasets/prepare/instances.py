"""Instance-id images to COCO annotations and back."""

from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ...errors import UserError
from .masks import read_mask

_IDS_PER_IMAGE = 100_000  # annotation id = image id * this + instance id: stable
_FAR = 1e9  # no coordinate is that large; also false for NaN


def read_instance_map(path: str | Path) -> np.ndarray:
    """Read an image of instance ids.

    Palette images hold their ids as palette indices, RGB ones in three equal channels.

    Args:
        path: image of integers, 0 is background.

    Returns:
        int32 array [H, W].

    Raises:
        UserError: the file cannot be read exactly, or its values are no ids.
    """
    mask = read_mask(path)
    if mask.colours:
        raise UserError('its colours are no instance ids', where=str(path),
                        expected='one grey value (or palette index) per object')
    if mask.values.min() < 0:
        raise UserError(f'holds the value {mask.values.min()}', where=str(path),
                        expected='0 for background and ids from 1 to 2147483647')
    return mask.values.astype(np.int32)


def pieces(ids: np.ndarray) -> dict[int, int]:
    """Return how many 8-connected pieces each instance id consists of, for ids in several."""
    rows, columns = np.nonzero(ids)
    values = ids[rows, columns]
    order = np.argsort(values, kind='stable')
    instances, begins = np.unique(values[order], return_index=True)
    found = {}
    for instance, pixels in zip(instances, np.split(order, begins[1:])):
        y, x = rows[pixels] - rows[pixels].min(), columns[pixels] - columns[pixels].min()
        mask = np.zeros((y.max() + 1, x.max() + 1), np.uint8)
        mask[y, x] = 1
        count = cv2.connectedComponents(mask, connectivity=8)[0] - 1
        if count > 1:
            found[int(instance)] = count
    return found


def annotations_of(ids: np.ndarray, image_id: int, masks: str = 'rle',
                   category_id: int = 1) -> list[dict]:
    """Turn instance ids into COCO annotations, one for each non-zero id.

    Pieces of one id stay one object. ``area`` and ``bbox`` (x, y, width, height) are those of
    the mask.

    Args:
        ids: int array [H, W].
        image_id: at least 1; with the instance id it makes the annotation's id.
        masks: 'rle' (exact) or 'polygon' (outer outlines: holes are filled).
        category_id: of all of them.
    """
    annotations = []
    instances = np.unique(ids[ids > 0])
    small = not len(instances) or instances[-1] < _IDS_PER_IMAGE
    for place, instance in enumerate(instances, 1):
        rle = encode(ids == instance)
        segmentation = rle if masks == 'rle' else _polygons(ids == instance)
        if not segmentation:
            continue
        annotations.append(dict(
            id=image_id * _IDS_PER_IMAGE + (int(instance) if small else place), image_id=image_id,
            category_id=category_id, iscrowd=0, area=float(coco_mask.area(rle)),
            bbox=[float(v) for v in coco_mask.toBbox(rle)], segmentation=segmentation))
    return annotations


def encode(mask: np.ndarray) -> dict:
    """Encode a mask [H, W] as COCO run lengths that JSON can hold."""
    return _text(coco_mask.encode(np.asfortranarray(mask, np.uint8)))


def decode(segmentation: dict | list, height: int, width: int) -> np.ndarray:
    """Decode a COCO segmentation, run lengths or polygons, to a boolean mask [H, W]."""
    return coco_mask.decode(run_lengths(segmentation, height, width)).astype(bool)


def run_lengths(segmentation: object, height: int, width: int) -> dict:
    """Return a COCO segmentation of any form as compressed run lengths of an image.

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]`` (or one of them), or run lengths
            ``dict(size, counts)`` with counts as a list or as COCO's string. What of a polygon
            lies outside of the image is cut off; pieces of fewer than three points have no area.
        height: of the image in pixels.
        width: of the image in pixels.

    Raises:
        UserError: it is none of these. pycocotools checks little: wrong counts read memory that
            is not theirs.
    """
    if isinstance(segmentation, list):
        return _polygon_runs(segmentation, height, width)
    if not isinstance(segmentation, dict) or not {'size', 'counts'} <= set(segmentation):
        raise UserError('has a segmentation that is neither polygons nor run lengths')
    size, counts = segmentation['size'], segmentation['counts']
    if size != [height, width]:
        raise UserError(f'has run lengths of size {size!r}', expected=f'{[height, width]} '
                        '(height, width) of its image')
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(n) is int and n >= 0 for n in runs):
        raise UserError('has run lengths that are no counts')
    if sum(runs) != height * width:
        raise UserError(f'has run lengths of {sum(runs)} pixels', expected=str(height * width))
    if 0 in runs[1:]:  # allowed, but pycocotools makes wrong boxes of it
        flat = np.repeat(np.arange(len(runs)) % 2, runs)
        return encode(flat.reshape(width, height).T)
    return _text(coco_mask.frPyObjects(dict(size=size, counts=runs), height, width))


def _polygon_runs(polygons: list, height: int, width: int) -> dict:
    if polygons and not isinstance(polygons[0], list):
        polygons = [polygons]
    kept = []
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(
                type(v) in (int, float) and abs(v) < _FAR for v in polygon):
            raise UserError('has a polygon that is no list of finite numbers')
        if len(polygon) % 2:
            raise UserError(f'has a polygon of {len(polygon)} numbers', expected='pairs x, y')
        if len(polygon) >= 6:
            kept.append([float(v) for v in polygon])
    far = max((abs(v) for polygon in kept for v in polygon), default=0)
    if far > 10 * max(height, width):
        raise UserError(f'has a polygon with the coordinate {far:g} in an image of '
                        f'{width} x {height} px')
    if not kept:
        return encode(np.zeros((height, width), np.uint8))
    return _text(coco_mask.merge(coco_mask.frPyObjects(kept, height, width)))


def _unpacked(text: str) -> list[int]:
    """Decode COCO's string of run lengths: groups of five bits, from the third differences."""
    codes = np.frombuffer(text.encode('latin-1', 'replace'), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise UserError("has run lengths whose text is not COCO's")
    ends = np.flatnonzero(~codes & 32)
    begins = np.concatenate([[0], ends[:-1] + 1])
    if (ends - begins).max() > 6:
        raise UserError("has run lengths whose text is not COCO's")
    shift = 5 * (np.arange(len(codes)) - np.repeat(begins, ends - begins + 1))
    runs = np.add.reduceat((codes & 31) << shift, begins)
    runs -= np.where(codes[ends] & 16, np.int64(1) << (shift[ends] + 5), 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs.tolist()


def _text(rle: dict) -> dict:
    return dict(size=[int(v) for v in rle['size']], counts=rle['counts'].decode('ascii'))


def instance_map(annotations: list[dict], height: int, width: int) -> np.ndarray:
    """Paint annotations into an int32 map [H, W] of ids 1, 2, ..., the first ones on top."""
    ids = np.zeros((height, width), np.int32)
    for number in range(len(annotations), 0, -1):
        ids[decode(annotations[number - 1]['segmentation'], height, width)] = number
    return ids


def _polygons(mask: np.ndarray) -> list[list[float]]:
    # A pixel is a square: outlines of the image enlarged 2x run along its edges.
    large: np.ndarray = np.kron(mask.astype(np.uint8), np.ones((2, 2), np.uint8))
    outlines, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((o.reshape(-1, 2) + 0.5) / 2).ravel().tolist() for o in outlines if len(o) >= 3]
