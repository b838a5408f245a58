"""COCO's average precision of resampled images, exactly: what its interval needs.

Detections are matched to objects image by image; only the curve of precision over recall looks at
all images together. So they are matched once, and a resample counts each image as often as it was
drawn. An image that was drawn twice is two images to COCO, with the same scores: its second copy
moves a point along the curve, and never above what the curve's envelope reaches anyway. (Equal
scores in one image are the exception: COCO ranks those as they happen to come.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .metrics import MAX_DETECTIONS, matched


class Matches(NamedTuple):
    """Detections of one category, those of the highest score first.

    Attributes:
        image: place of each one's image in the truth, int64 (D,).
        right: whether it matches an object, at each of COCO's T IoU thresholds, bool (T, D).
        ignored: whether it counts nowhere, since it matches a crowd, bool (T, D).
        objects: how many objects each image has, int64 (I,).
    """

    image: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


def matches(truth: dict, results: Sequence[dict], kind: str = 'segm',
            max_detections: int = MAX_DETECTIONS) -> list[Matches]:
    """Match detections to objects; one of each category.

    Args:
        truth, results, kind, max_detections: as of :func:`.metrics.coco_ap`.
    """
    run, images = matched(truth, results, kind, None, max_detections), len(truth['images'])
    areas, none = len(run.params.areaRng), np.zeros((len(run.params.iouThrs), 0), bool)
    found = []
    for category in range(len(run.params.catIds)):
        start = category * areas * images  # the first range of areas is 'all'
        own = run.evalImgs[start:start + images]
        score = np.concatenate([one['dtScores'] if one else [] for one in own])
        order = np.argsort(-score, kind='stable')
        image = np.repeat(np.arange(images), [len(one['dtScores']) if one else 0 for one in own])
        ignored = np.concatenate([one['dtIgnore'] if one else none for one in own], 1) > 0
        right = np.concatenate([one['dtMatches'] if one else none for one in own], 1) > 0
        found.append(Matches(image[order], (right & ~ignored)[:, order], ignored[:, order],
                             np.array([np.sum(one['gtIgnore'] == 0) if one else 0 for one in own])))
    return found


def resampled_ap(found: Sequence[Matches], weights: np.ndarray) -> np.ndarray:
    """Return COCO's AP under each weighting of the images, in [0, 1], (R,).

    It is NaN where no object is drawn; a category without objects is left out of the mean.

    Args:
        found: of :func:`matches`.
        weights: how often each image was drawn, (R, I).
    """
    by_category = []
    for one in found:
        objects, drawn = weights @ one.objects, weights[:, one.image]
        curves = np.mean([_ap(drawn[:, ~ignored], right[~ignored], objects)
                          for right, ignored in zip(one.right, one.ignored)], 0)
        by_category.append(np.where(objects > 0, curves, np.nan))
    there = np.isfinite(by_category)
    with np.errstate(invalid='ignore'):
        return np.where(there, by_category, 0).sum(0) / there.sum(0)


def _ap(drawn: np.ndarray, right: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return the mean precision at 101 recalls under each weighting, (R,).

    Args:
        drawn: weight of each detection, best first, (R, D).
        right: whether it matches, bool (D,).
        objects: weight of all objects, (R,).
    """
    hits = np.flatnonzero(right)
    if not len(hits):
        return np.zeros(len(drawn))
    seen, caught = drawn.cumsum(1)[:, hits], drawn[:, hits].cumsum(1)
    precision = np.divide(caught, seen, out=np.zeros(seen.shape), where=seen > 0)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    recall = caught / np.maximum(objects, 1)[:, None]
    recalls = np.linspace(0, 1, 101)
    padded = np.pad(precision, ((0, 0), (0, 1)))  # a recall that is not reached has precision 0
    return np.array([row[np.searchsorted(reached, recalls)].mean()
                     for row, reached in zip(padded, recall)])
