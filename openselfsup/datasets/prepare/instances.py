"""Instance-id images to COCO annotations and back."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask

from ...errors import UserError

_IDS_PER_IMAGE = 100_000  # annotation id = image id * this + instance id: stable


def read_instance_map(path: str | Path) -> np.ndarray:
    """Read an image of instance ids.

    Palette images hold their ids as palette indices, RGB ones in three equal channels.

    Args:
        path: 8- or 16-bit image, 0 is background.

    Returns:
        int32 array [H, W].

    Raises:
        UserError: the file cannot be read, or its colours are no ids.
    """
    try:
        with Image.open(path) as image:
            ids = np.asarray(image)
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f'cannot be read as an image of instance ids ({error})',
                        where=str(path)) from None
    if ids.ndim == 3:
        if not (ids[..., :3] == ids[..., :1]).all():
            raise UserError('its colours are no instance ids', where=str(path),
                            expected='one grey value (or palette index) per object')
        ids = ids[..., 0]
    return ids.astype(np.int32)


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
    for instance in np.unique(ids[ids > 0]):
        rle = encode(ids == instance)
        segmentation = rle if masks == 'rle' else _polygons(ids == instance)
        if not segmentation:
            continue
        annotations.append(dict(
            id=image_id * _IDS_PER_IMAGE + int(instance), image_id=image_id,
            category_id=category_id, iscrowd=0, area=float(coco_mask.area(rle)),
            bbox=[float(v) for v in coco_mask.toBbox(rle)], segmentation=segmentation))
    return annotations


def encode(mask: np.ndarray) -> dict:
    """Encode a mask [H, W] as COCO run lengths that JSON can hold."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=[int(v) for v in rle['size']], counts=rle['counts'].decode('ascii'))


def decode(segmentation: dict | list, height: int, width: int) -> np.ndarray:
    """Decode a COCO segmentation, run lengths or polygons, to a boolean mask [H, W]."""
    return coco_mask.decode(run_lengths(segmentation, height, width)).astype(bool)


def run_lengths(segmentation: dict | list, height: int, width: int) -> dict:
    """Return a COCO segmentation of any form as the run lengths that pycocotools works on."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation['counts'], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def instance_map(annotations: list[dict], height: int, width: int) -> np.ndarray:
    """Paint annotations into an int32 map [H, W] of ids 1, 2, ..., the first ones on top."""
    ids = np.zeros((height, width), np.int32)
    for number in range(len(annotations), 0, -1):
        ids[decode(annotations[number - 1]['segmentation'], height, width)] = number
    return ids


def _polygons(mask: np.ndarray) -> list[list[float]]:
    # A pixel is a square: outlines of the image enlarged 2x run along its edges.
    large = np.kron(mask.astype(np.uint8), np.ones((2, 2), np.uint8))
    outlines, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((o.reshape(-1, 2) + 0.5) / 2).ravel().tolist() for o in outlines if len(o) >= 3]
