"""Images and objects of a COCO data set for training, reproducible wherever a run goes on."""

import functools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from ...datasets.decode import read_tile
from ...datasets.prefetch import prefetch
from ...datasets.prepare.annotations import Id
from ...errors import UserError

AHEAD = 5  # batches under way, the one that is due included

Window = tuple[int, int, int, int]  # (top, left, bottom, right) in pixels


class InstanceDataset:
    """A COCO data set of instance masks.

    Args:
        folder: of the images.
        truth: content of a checked JSON, see openselfsup.datasets.prepare.annotations.Coco.
        with_empty: keep images without objects.

    Attributes:
        images: entries of the JSON, in its order.
        categories: COCO category ids; label k of a model (k >= 1) is ``categories[k - 1]``.

    Raises:
        UserError: no image is left.
    """

    def __init__(self, folder: Path, truth: dict, with_empty: bool = True):
        self.folder = folder
        self.annotations: dict[Id, list[dict]] = defaultdict(list)
        for annotation in truth['annotations']:
            if not annotation['iscrowd']:
                self.annotations[annotation['image_id']].append(annotation)
        self.categories = ordered(truth['categories'])
        self.images = [i for i in truth['images'] if with_empty or self.annotations[i['id']]]
        if not self.images:
            raise UserError('there is not one image with objects', where=str(folder))

    def __len__(self) -> int:
        return len(self.images)

    def window(self, index: int, size: tuple[int, int] | None, place: np.ndarray) -> Window | None:
        """Choose a window of an image.

        Args:
            index: the image.
            size: (height, width) in pixels, cut to those of the image; None for no window.
            place: fractions in [0, 1) of the room that top and left have, shape (2,).
        """
        if size is None:
            return None
        whole = self.images[index]['height'], self.images[index]['width']
        height, width = map(min, size, whole)
        top, left = (int(p * (w - s + 1)) for p, w, s in zip(place, whole, (height, width)))
        return top, left, top + height, left + width

    def image(self, index: int, flip: bool = False, window: Window | None = None) -> Tensor:
        """Return an image, or a window of it, as float32 [3, H, W], RGB, in [0, 255].

        A flip mirrors left and right of what the window shows.
        """
        pixels = read_tile(self.folder / self.images[index]['file_name'])
        if window:
            top, left, bottom, right = window
            pixels = pixels[top:bottom, left:right]
        if flip:
            pixels = pixels[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()

    def target(self, index: int, flip: bool = False, window: Window | None = None
               ) -> dict[str, Tensor]:
        """Return the objects of an image, or of a window, as torchvision's models take them.

        Boxes (x0, y0, x1, y1) float32 [N, 4] around what is to be seen of the masks, labels
        int64 [N] from 1, masks uint8 [N, H, W].
        """
        entry = self.images[index]
        top, left, bottom, right = window or (0, 0, entry['height'], entry['width'])
        found = [(a['segmentation'], self.categories.index(a['category_id']) + 1)
                 for a in self.annotations[entry['id']]]
        found = [(rle, label) for rle, label in found
                 if _overlaps(coco_mask.toBbox(rle), top, left, bottom, right)]
        # One after the other: a second array of all masks costs more than the decoding.
        masks = np.empty((len(found), bottom - top, right - left), np.uint8)
        for mask, (rle, _) in zip(masks, found):
            columns = coco_mask.decode(rle).T[left:right, top:bottom]  # W x H, as decoded
            cv2.transpose(np.ascontiguousarray(columns[::-1] if flip else columns), mask)
        boxes = np.array([cv2.boundingRect(mask) for mask in masks], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        seen = boxes[:, 2] > boxes[:, 0]  # a concave object may surround a window
        labels = np.array([label for _, label in found], np.int64)
        if not seen.all():
            boxes, masks, labels = boxes[seen], masks[seen], labels[seen]
        return dict(boxes=torch.from_numpy(boxes), labels=torch.from_numpy(labels),
                    masks=torch.from_numpy(masks))


def ordered(categories: list[dict]) -> list[Id]:
    """Return the ids of categories in the order of a model's labels: numbers before text."""
    return sorted((c['id'] for c in categories), key=lambda i: (isinstance(i, str), i))


def _overlaps(box: np.ndarray, top: int, left: int, bottom: int, right: int) -> bool:
    """Return whether a box (x, y, width, height) and a window have a part in common."""
    x, y, width, height = box
    return bool(max(x, left) < min(x + width, right) and max(y, top) < min(y + height, bottom))


def batch_indices(count: int, batch: int, iteration: int, seed: int) -> list[int]:
    """Return the images of a global batch.

    The data set is shuffled anew for each pass; passes follow one another without a gap, so
    that any batch size works. A function of its arguments only: a run goes on anywhere.
    """
    places = range(iteration * batch, (iteration + 1) * batch)
    return [int(_order(count, seed, place // count)[place % count]) for place in places]


@functools.lru_cache(maxsize=8)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def training_batches(dataset: InstanceDataset, batch: int, start: int, stop: int, seed: int,
                     rank: int = 0, world_size: int = 1, flip: bool = True,
                     workers: int = 2, crop: tuple[int, int] | None = None
                     ) -> Iterator[tuple[list[Tensor], list[dict]]]:
    """Iterate over this rank's share of the global batches start ... stop - 1.

    Args:
        dataset: where they come from.
        batch: images of a global batch; ``world_size`` must divide it.
        start: first iteration.
        stop: iteration to stop before.
        seed: of the order and the flips.
        rank: which share of a batch is ours.
        world_size: how many shares there are.
        flip: mirror each image with probability 1/2.
        workers: threads that prepare batches.
        crop: (height, width) of a random window that is taken of each image, at most all of it.

    Returns:
        Of images float32 [3, H, W] in [0, 255], and their targets, in lists of one length.
    """
    share = batch // world_size

    def prepared(iteration: int) -> tuple[list[Tensor], list[dict]]:
        indices = batch_indices(len(dataset), batch, iteration, seed)
        flips = np.random.default_rng((seed, 1, iteration)).random(batch) < 0.5 * flip
        places = np.random.default_rng((seed, 2, iteration)).random((batch, 2))
        own = [(indices[i], bool(flips[i]), dataset.window(indices[i], crop, places[i]))
               for i in range(rank * share, (rank + 1) * share)]
        return ([dataset.image(*drawn) for drawn in own], [dataset.target(*drawn) for drawn in own])

    return prefetch(prepared, range(start, stop), max(workers, 1), AHEAD, 'images')
