"""The one evaluator of instance segmentation: whatever trained, these numbers are comparable.

AP looks at categories; the object-level scores take an object for found whatever its category.

It takes the truth as a COCO dataset and predictions as a list of COCO results. Ids mean nothing
but which image and which category: any integers or text do, and those of annotations are not
looked at. A crowd region (``iscrowd``) is nothing to be found: COCO's rules for AP; in the
object-level scores its pixels count nowhere but where an object lies over it.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ...datasets.prepare.annotations import Id
from ...datasets.prepare.instances import decode, run_lengths
from ...errors import UserError
from .object_metrics import (
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
                       subsets: Mapping[str, Sequence[Id]] | None = None,
                       score_threshold: float = SCORE_THRESHOLD,
                       max_detections: int = MAX_DETECTIONS,
                       masks: bool = True) -> dict[str, Any]:
    """Compute every instance score.

    Args:
        truth: content of a COCO JSON with masks and areas; one or more categories.
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
    _refuse_strangers(truth, results)
    with_masks = masks and all('segmentation' in r for r in results)
    images = _object_scores(truth, results, score_threshold) if with_masks else {}
    scores: dict[str, dict[str, Mapping[str, float | None]]] = {}
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
            image_ids: Sequence[Id] | None = None,
            max_detections: int = MAX_DETECTIONS) -> dict[str, float | None]:
    """Return COCO's average precisions in [0, 1], None where there is nothing to find.

    Args:
        truth: content of a COCO JSON.
        results: COCO results.
        kind: 'bbox' or 'segm'.
        image_ids: only these images.
        max_detections: how many results of an image count, those of the highest scores.
    """
    run = matched(truth, results, kind, image_ids, max_detections)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        run.accumulate()
    precision = run.eval['precision'][..., 0]  # thresholds x recalls x categories x areas
    at = {f'{t:.2f}': i for i, t in enumerate(run.params.iouThrs)}
    parts = dict(AP=precision[..., 0], AP50=precision[at['0.50'], ..., 0],
                 AP75=precision[at['0.75'], ..., 0],
                 **{f'AP{area[0]}': precision[..., i]
                    for i, area in enumerate(run.params.areaRngLbl) if area != 'all'})
    return {name: float(p[p > -1].mean()) if (p > -1).any() else None
            for name, p in parts.items()}


def matched(truth: dict, results: Sequence[dict], kind: str,
            image_ids: Sequence[Id] | None = None,
            max_detections: int = MAX_DETECTIONS) -> COCOeval:
    """Match detections to objects, image by image; arguments as of :func:`coco_ap`."""
    with contextlib.redirect_stdout(io.StringIO()):
        dataset, found = COCO(), COCO()
        dataset.dataset, results, numbers = _numbered(truth, results, kind)
        dataset.createIndex()
        if results:
            found = dataset.loadRes(results)
        else:  # loadRes takes no empty list
            found.dataset = {**dataset.dataset, 'annotations': []}
            found.createIndex()
        run = COCOeval(dataset, found, kind)
        run.params.maxDets = [max_detections]
        if image_ids is not None:
            run.params.imgIds = [numbers[i] for i in image_ids]
        run.evaluate()
    return run


def _numbered(truth: dict, results: Sequence[dict], kind: str
              ) -> tuple[dict, list[dict], dict[Any, int]]:
    """Return truth and results with ids 1, 2, ..., and the numbers of the images.

    pycocotools sorts ids, keeps results by annotation id, and takes the id 0 for 'unmatched'.
    """
    images = {image['id']: n for n, image in enumerate(truth['images'], 1)}
    categories = {c['id']: n for n, c in enumerate(truth['categories'], 1)}
    wanted = 'segmentation' if kind == 'segm' else 'bbox'

    def renamed(entry: dict, **more: Any) -> dict:
        return dict(image_id=images[entry['image_id']],
                    category_id=categories[entry['category_id']], **{wanted: entry[wanted]}, **more)

    sizes = [dict(id=n, height=i['height'], width=i['width'])
             for i, n in zip(truth['images'], images.values())]
    own = [renamed(a, id=n, area=a['area'], iscrowd=int(a.get('iscrowd', 0)))
           for n, a in enumerate(truth['annotations'], 1)]
    return (dict(info={}, images=sizes, categories=[dict(id=n) for n in categories.values()],
                 annotations=own), [renamed(r, score=r['score']) for r in results], images)


def _refuse_strangers(truth: dict, results: Sequence[dict]) -> None:
    """Raise UserError for a result of an image or a category that is not in the truth."""
    for key, known in (('image_id', truth['images']), ('category_id', truth['categories'])):
        strange = {r[key] for r in results} - {entry['id'] for entry in known}
        if strange:
            raise UserError(f'there are results of {key} {sorted(strange, key=str)[:5]}, which the '
                            'truth does not have')


def truth_map(truth: dict, image: dict) -> np.ndarray:
    """Return the true objects of an image as int32 [H, W] of ids 1, 2, ..., crowds left out.

    Where two lie over each other the pixels belong to the smaller one.
    """
    return _painted([(0, a['segmentation']) for a in truth['annotations']
                     if a['image_id'] == image['id'] and not a.get('iscrowd')], image)


def result_map(results: Sequence[dict], image: dict,
               score_threshold: float = SCORE_THRESHOLD) -> np.ndarray:
    """Return the found objects of an image as int32 [H, W]; where two lie over each other the
    pixels belong to the one of the higher score, of equal ones to the smaller. Id 1 has the
    highest score.
    """
    return _painted([(-r['score'], r['segmentation']) for r in results
                     if r['image_id'] == image['id'] and r['score'] >= score_threshold], image)


def _painted(objects: Sequence[tuple[float, Any]], image: dict) -> np.ndarray:
    """Paint (rank, segmentation) so that lower ranks, and of one rank the smaller, are on top."""
    ids = np.zeros((image['height'], image['width']), np.int32)
    masks = [(rank, run_lengths(segmentation, *ids.shape)) for rank, segmentation in objects]
    # Masks of one rank and size in the order of their text: it is the same for truth and results.
    masks.sort(key=lambda m: (m[0], float(coco_mask.area(m[1])), m[1]['counts']))
    for number in range(len(masks), 0, -1):
        ids[decode(masks[number - 1][1], *ids.shape)] = number
    return ids


def _crowd(annotations: Sequence[dict], image: dict) -> np.ndarray:
    """Return the pixels of the crowd regions of an image, boolean [H, W]."""
    crowd = np.zeros((image['height'], image['width']), bool)
    for annotation in annotations:
        if annotation.get('iscrowd'):
            crowd |= decode(annotation['segmentation'], *crowd.shape)
    return crowd


def _object_scores(truth: dict, results: Sequence[dict], threshold: float) -> dict[Any, dict]:
    by_image: dict[Any, list[dict]] = {image['id']: [] for image in truth['images']}
    for result in results:
        by_image[result['image_id']].append(result)
    own: dict[Any, list[dict]] = {image['id']: [] for image in truth['images']}
    for annotation in truth['annotations']:
        own[annotation['image_id']].append(annotation)
    scores = {}
    for image in truth['images']:
        true = truth_map(dict(annotations=own[image['id']]), image)
        found = result_map(by_image[image['id']], image, threshold)
        found[_crowd(own[image['id']], image) & (true == 0)] = 0
        areas = overlaps(true, found)
        scores[image['id']] = dict(
            counts=glas_counts(areas), panoptic=panoptic(areas), dice=object_dice(areas),
            hausdorff=object_hausdorff(true, found), aji=aji(areas))
    return scores


def _pooled(images: Sequence[dict]) -> dict[str, float]:
    counts = Counts(*np.sum([i['counts'] for i in images], 0).astype(int).tolist())
    tp, fp, fn, iou = np.sum([i['panoptic'] for i in images], 0).tolist()
    quality = Panoptic(int(tp), int(fp), int(fn), iou)
    means = {key: float(np.mean([i[key] for i in images])) for key in ('dice', 'hausdorff', 'aji')}
    return dict(f1=counts.f1, **means, pq=quality.pq, sq=quality.sq, **counts._asdict())


def _plain(image: dict) -> dict[str, float]:
    return dict(f1=image['counts'].f1, dice=image['dice'], hausdorff=image['hausdorff'],
                aji=image['aji'], pq=image['panoptic'].pq, **image['counts']._asdict())
