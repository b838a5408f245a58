"""The one evaluator of instance segmentation: whatever trained, these numbers are comparable.

It takes the truth as a COCO dataset and predictions as a list of COCO results.
"""

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .segmentation_objects import (
    Counts,
    Panoptic,
    aji,
    glas_counts,
    object_dice,
    object_hausdorff,
    overlaps,
    panoptic,
)

PROTOCOL = 'instance-segmentation-v1'
SCORE_THRESHOLD = 0.5  # an object counts as found in the object-level scores
MAX_DETECTIONS = 100


def evaluate_instances(truth: dict, results: Sequence[dict],
                       subsets: dict[str, Sequence[int]] | None = None,
                       score_threshold: float = SCORE_THRESHOLD,
                       max_detections: int = MAX_DETECTIONS,
                       masks: bool = True) -> dict[str, Any]:
    """Compute every instance score.

    Args:
        truth: content of a COCO JSON; one or more categories.
        results: COCO results: ``image_id``, ``category_id``, ``bbox`` (XYWH), ``score`` and,
            for the scores of masks, ``segmentation`` (run lengths).
        subsets: image ids of subsets by name, e.g. testA and testB of GlaS.
        score_threshold: smallest score of an object in the object-level scores.
        max_detections: how many results of an image count for AP.
        masks: whether masks were to be found; otherwise boxes alone are scored.

    Returns:
        ``protocol``, ``score_threshold``, ``max_detections``, ``scores`` (by subset, 'all' first:
        ``bbox`` and ``segm`` each with AP, AP50, AP75, APs, APm and APl in [0, 1], None where
        undefined; ``objects`` with f1, dice, hausdorff, aji, pq, sq and the counts) and
        ``images`` (the object-level scores of each image by file name). F1 and PQ count objects
        over the whole subset; object Dice, Hausdorff (pixels) and AJI are means over its images.
    """
    sets = {'all': [i['id'] for i in truth['images']], **(subsets or {})}
    with_masks = masks and all('segmentation' in r for r in results)
    images = _object_scores(truth, results, score_threshold) if with_masks else {}
    scores = {}
    for name, ids in sets.items():
        scores[name] = dict(bbox=coco_ap(truth, results, 'bbox', ids, max_detections))
        if with_masks:
            scores[name]['segm'] = coco_ap(truth, results, 'segm', ids, max_detections)
            scores[name]['objects'] = _pooled([images[i] for i in ids])
    return dict(protocol=PROTOCOL, score_threshold=score_threshold,
                max_detections=max_detections, scores=scores,
                images={entry['file_name']: _plain(images[entry['id']])
                        for entry in truth['images']} if with_masks else {})


def coco_ap(truth: dict, results: Sequence[dict], kind: str,
            image_ids: Sequence[int] | None = None,
            max_detections: int = MAX_DETECTIONS) -> dict[str, float | None]:
    """Return COCO's average precisions in [0, 1], None where there is nothing to find.

    Args:
        truth: content of a COCO JSON.
        results: COCO results.
        kind: 'bbox' or 'segm'.
        image_ids: only these images.
        max_detections: how many results of an image count, those of the highest scores.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        dataset, found = COCO(), COCO()
        dataset.dataset = copy.deepcopy({**truth, 'info': truth.get('info', {})})
        dataset.createIndex()
        if results:
            wanted = ('image_id', 'category_id', 'score', 'segmentation' if kind == 'segm'
                      else 'bbox')
            found = dataset.loadRes([{k: r[k] for k in wanted} for r in results])
        else:  # loadRes takes no empty list
            found.dataset = dict(images=truth['images'], categories=truth['categories'],
                                 annotations=[])
            found.createIndex()
        run = COCOeval(dataset, found, kind)
        run.params.maxDets = [max_detections]
        if image_ids is not None:
            run.params.imgIds = sorted(image_ids)
        run.evaluate()
        run.accumulate()
    precision = run.eval['precision'][..., 0]  # thresholds x recalls x categories x areas
    at = {f'{t:.2f}': i for i, t in enumerate(run.params.iouThrs)}
    parts = dict(AP=precision[..., 0], AP50=precision[at['0.50'], ..., 0],
                 AP75=precision[at['0.75'], ..., 0],
                 **{f'AP{area[0]}': precision[..., i]
                    for i, area in enumerate(run.params.areaRngLbl) if area != 'all'})
    return {name: float(p[p > -1].mean()) if (p > -1).any() else None
            for name, p in parts.items()}


def truth_map(truth: dict, image: dict) -> np.ndarray:
    """Return the true objects of an image as int32 [H, W] of ids 1, 2, ..."""
    own = [a['segmentation'] for a in truth['annotations'] if a['image_id'] == image['id']]
    return _painted(own, image)


def result_map(results: Sequence[dict], image: dict,
               score_threshold: float = SCORE_THRESHOLD) -> np.ndarray:
    """Return the found objects of an image as int32 [H, W]; where two lie over each other the
    pixels belong to the one of the higher score. Id 1 has the highest score.
    """
    own = sorted((r for r in results if r['image_id'] == image['id']
                  and r['score'] >= score_threshold), key=lambda r: -r['score'])
    return _painted([r['segmentation'] for r in own], image)


def _painted(segmentations: Sequence[Any], image: dict) -> np.ndarray:
    ids = np.zeros((image['height'], image['width']), np.int32)
    for number in range(len(segmentations), 0, -1):
        rle = segmentations[number - 1]
        if isinstance(rle, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(rle, *ids.shape))
        elif isinstance(rle['counts'], list):
            rle = coco_mask.frPyObjects(rle, *ids.shape)
        ids[coco_mask.decode(rle).astype(bool)] = number
    return ids


def _object_scores(truth: dict, results: Sequence[dict], threshold: float) -> dict[int, dict]:
    by_image: dict[int, list[dict]] = {image['id']: [] for image in truth['images']}
    for result in results:
        by_image[result['image_id']].append(result)
    own: dict[int, list[dict]] = {image['id']: [] for image in truth['images']}
    for annotation in truth['annotations']:
        own[annotation['image_id']].append(annotation)
    scores = {}
    for image in truth['images']:
        true = truth_map(dict(annotations=own[image['id']]), image)
        found = result_map(by_image[image['id']], image, threshold)
        areas = overlaps(true, found)
        scores[image['id']] = dict(
            counts=glas_counts(areas), panoptic=panoptic(areas), dice=object_dice(areas),
            hausdorff=object_hausdorff(true, found), aji=aji(areas))
    return scores


def _pooled(images: Sequence[dict]) -> dict[str, float]:
    counts = Counts(*np.sum([i['counts'] for i in images], 0).astype(int).tolist())
    quality = np.sum([i['panoptic'] for i in images], 0)
    quality = Panoptic(*quality[:3].astype(int).tolist(), float(quality[3]))
    means = {key: float(np.mean([i[key] for i in images])) for key in ('dice', 'hausdorff', 'aji')}
    return dict(f1=counts.f1, **means, pq=quality.pq, sq=quality.sq, **counts._asdict())


def _plain(image: dict) -> dict[str, float]:
    return dict(f1=image['counts'].f1, dice=image['dice'], hausdorff=image['hausdorff'],
                aji=image['aji'], pq=image['panoptic'].pq, **image['counts']._asdict())
