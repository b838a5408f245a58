"""Scores of one image from two maps of instance ids: the GlaS challenge's, AJI and PQ.

Both maps are int arrays [H, W], 0 is background. Everything that needs only areas comes from
one table of intersections, :func:`overlaps`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np


class Overlaps(NamedTuple):
    """Areas of the objects of two maps and of their intersections, in pixels.

    Attributes:
        truth: areas of the G true objects, int64 [G].
        found: areas of the S found objects, int64 [S].
        both: areas of the intersections, int64 [G, S].
    """

    truth: np.ndarray
    found: np.ndarray
    both: np.ndarray


def overlaps(truth: np.ndarray, found: np.ndarray) -> Overlaps:
    """Count the pixels of all objects and of all their intersections.

    Objects are in the order of their ids.

    Raises:
        ValueError: the maps differ in size.
    """
    if truth.shape != found.shape:
        raise ValueError(f'maps of {truth.shape} and {found.shape} cannot be compared')
    true_ids, t = np.unique(truth, return_inverse=True)
    found_ids, s = np.unique(found, return_inverse=True)
    table = np.bincount(t.ravel() * len(found_ids) + s.ravel(),
                        minlength=len(true_ids) * len(found_ids))
    table = table.reshape(len(true_ids), len(found_ids))
    table = table[true_ids > 0]
    return Overlaps(table.sum(1), np.bincount(s.ravel(), minlength=len(found_ids))[found_ids > 0],
                    table[:, found_ids > 0])


class Counts(NamedTuple):
    """True positives, false positives, false negatives; add them up over a set."""

    tp: int
    fp: int
    fn: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there is nothing to find and nothing was found."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0


def glas_counts(areas: Overlaps) -> Counts:
    """Detection after the GlaS challenge (Sirinukunwattana et al. 2017, section 4.1).

    A found object belongs to the true object it shares most pixels with. It is a true positive
    if it covers at least half of that one; a second object that does so too is a false one.
    """
    if not areas.both.size:
        return Counts(0, len(areas.found), len(areas.truth))
    best = areas.both.argmax(0)  # S
    shared = areas.both[best, np.arange(len(areas.found))]
    hit = set(best[(shared > 0) & (2 * shared >= areas.truth[best])].tolist())
    return Counts(len(hit), len(areas.found) - len(hit), len(areas.truth) - len(hit))


def object_dice(areas: Overlaps) -> float:
    """Object-level Dice of the GlaS challenge (section 4.2, equation 3).

    Half the area-weighted mean, over true objects, of their Dice with the found object that
    overlaps them most, plus the same with the roles exchanged. An object that nothing overlaps
    has Dice 0. Without any object in either map it is 1, in one of them 0.
    """
    if not len(areas.truth) or not len(areas.found):
        return float(len(areas.truth) == len(areas.found))

    def half(own: np.ndarray, other: np.ndarray, both: np.ndarray) -> float:
        best = both.argmax(1)
        shared = both[np.arange(len(own)), best]
        return float((own / own.sum() * (2 * shared / (own + other[best]))).sum())

    return 0.5 * (half(areas.truth, areas.found, areas.both)
                  + half(areas.found, areas.truth, areas.both.T))


def object_hausdorff(truth: np.ndarray, found: np.ndarray) -> float:
    """Object-level Hausdorff distance of the GlaS challenge (section 4.3, equation 5), in pixels.

    Weighted and symmetric as :func:`object_dice`; the distance is between the regions of the
    two objects. An object that nothing overlaps is compared with the object of the other map at
    the smallest Hausdorff distance. Where only one map has objects the paper defines nothing:
    the diagonal of the image, its largest possible distance, is taken; 0 where none has.
    """
    areas = overlaps(truth, found)
    if not len(areas.truth) or not len(areas.found):
        same = len(areas.truth) == len(areas.found)
        return 0.0 if same else float(np.hypot(truth.shape[0] - 1, truth.shape[1] - 1))
    true_parts, found_parts = _regions(truth), _regions(found)
    total = 0.0
    for own, other, area, both in ((true_parts, found_parts, areas.truth, areas.both),
                                   (found_parts, true_parts, areas.found, areas.both.T)):
        for i, part in enumerate(own):
            partners = [other[both[i].argmax()]] if both[i].any() else other
            total += area[i] / area.sum() * _nearest(part, partners)
    return 0.5 * total


class _Region(NamedTuple):
    """An object: its box (y0, x0, y1, x1) and its pixels inside the box, uint8."""

    box: np.ndarray
    mask: np.ndarray


def _regions(ids: np.ndarray) -> list[_Region]:
    """Return the objects in the order of their ids."""
    rows, columns = np.nonzero(ids)
    order = np.argsort(ids[rows, columns], kind='stable')
    begins = np.unique(ids[rows, columns][order], return_index=True)[1]
    regions = []
    for pixels in np.split(order, begins[1:]):
        y, x = rows[pixels], columns[pixels]
        box = np.array([y.min(), x.min(), y.max() + 1, x.max() + 1])
        mask = np.zeros(box[2:] - box[:2], np.uint8)
        mask[y - box[0], x - box[1]] = 1
        regions.append(_Region(box, mask))
    return regions


def _nearest(part: _Region, others: Sequence[_Region]) -> float:
    """Return the smallest Hausdorff distance of an object to others.

    The distance is no less than that of any two parallel sides of the boxes: an outermost
    pixel of one object has nothing of the other beyond its box. Most need not be computed.
    """
    bounds = [float(np.abs(part.box - other.box).max()) for other in others]
    best = np.inf
    for i in np.argsort(bounds):
        if bounds[i] >= best:
            break
        best = min(best, _hausdorff(part, others[i]))
    return best


def _hausdorff(a: _Region, b: _Region) -> float:
    y0, x0 = np.minimum(a.box[:2], b.box[:2])
    y1, x1 = np.maximum(a.box[2:], b.box[2:])
    inside, away = [], []
    for region in (a, b):
        canvas = np.zeros((y1 - y0, x1 - x0), np.uint8)
        top, left, bottom, right = region.box - (y0, x0, y0, x0)
        canvas[top:bottom, left:right] = region.mask
        inside.append(canvas > 0)
        away.append(cv2.distanceTransform(1 - canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    return float(max(away[1][inside[0]].max(), away[0][inside[1]].max()))


def aji(areas: Overlaps) -> float:
    """Aggregated Jaccard index (Kumar et al. 2017, algorithm 1).

    Every true object takes the found object of the highest Jaccard index; the intersections
    over the unions, to which the objects that nobody took are added. 1 if there is nothing to
    find and nothing was found.
    """
    if not len(areas.truth) or not len(areas.found):
        return float(len(areas.truth) == len(areas.found))
    union = areas.truth[:, None] + areas.found[None] - areas.both
    best = (areas.both / union).argmax(1)
    rows = np.arange(len(areas.truth))
    overlap = areas.both[rows, best]
    total = np.where(overlap > 0, union[rows, best], areas.truth).sum()
    taken = set(best[overlap > 0].tolist())
    total += sum(area for s, area in enumerate(areas.found) if s not in taken)
    return float(overlap.sum() / total)


class Panoptic(NamedTuple):
    """What panoptic quality needs; add it up over a set."""

    tp: int
    fp: int
    fn: int
    iou: float

    @property
    def pq(self) -> float:
        """Panoptic quality; 1 where there is nothing to find and nothing was found."""
        total = self.tp + 0.5 * (self.fp + self.fn)
        return self.iou / total if total else 1.0

    @property
    def sq(self) -> float:
        """Segmentation quality: the mean IoU of what was recognised, 0 if nothing was."""
        return self.iou / self.tp if self.tp else 0.0


def panoptic(areas: Overlaps) -> Panoptic:
    """Match objects of IoU above 1/2 (Kirillov et al. 2019); such matches are unique."""
    if not areas.both.size:
        return Panoptic(0, len(areas.found), len(areas.truth), 0.0)
    iou = areas.both / (areas.truth[:, None] + areas.found[None] - areas.both)
    matched = iou > 0.5
    tp = int(matched.sum())
    return Panoptic(tp, len(areas.found) - tp, len(areas.truth) - tp, float(iou[matched].sum()))
