"""Which values the keys of a detection config take, where their type alone does not say it."""

import math
from typing import Any

_ANY = (-math.inf, math.inf)
# The least and the greatest value; of a tuple those of its elements.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys((
        'DATALOADER.NUM_WORKERS', 'MODEL.ROI_MASK_HEAD.NUM_CONV', 'SOLVER.MAX_ITER',
        'SOLVER.BASE_LR', 'SOLVER.STEPS', 'SOLVER.GAMMA', 'SOLVER.MOMENTUM',
        'SOLVER.WEIGHT_DECAY', 'SOLVER.WEIGHT_DECAY_NORM', 'SOLVER.WARMUP_ITERS',
        'SOLVER.WARMUP_FACTOR', 'TEST.EVAL_PERIOD'), (0, math.inf)),
    **dict.fromkeys((
        'INPUT.MIN_SIZE_TRAIN', 'INPUT.MAX_SIZE_TRAIN', 'INPUT.MIN_SIZE_TEST',
        'INPUT.MAX_SIZE_TEST', 'INPUT.CROP.SIZE', 'MODEL.FPN.OUT_CHANNELS',
        'MODEL.RPN.BATCH_SIZE_PER_IMAGE', 'MODEL.RPN.PRE_NMS_TOPK_TRAIN',
        'MODEL.RPN.PRE_NMS_TOPK_TEST', 'MODEL.RPN.POST_NMS_TOPK_TRAIN',
        'MODEL.RPN.POST_NMS_TOPK_TEST', 'MODEL.ROI_HEADS.NUM_CLASSES',
        'MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE', 'MODEL.ROI_BOX_HEAD.FC_DIM',
        'MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION', 'MODEL.ROI_MASK_HEAD.CONV_DIM',
        'MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION', 'MODEL.RETINANET.NUM_CLASSES',
        'MODEL.RETINANET.TOPK_CANDIDATES_TEST', 'SOLVER.IMS_PER_BATCH',
        'SOLVER.CHECKPOINT_PERIOD', 'TEST.DETECTIONS_PER_IMAGE', 'TEST.PRECISE_BN.NUM_ITER'),
        (1, math.inf)),
    **dict.fromkeys((
        'MODEL.RPN.IOU_THRESHOLDS', 'MODEL.RPN.POSITIVE_FRACTION', 'MODEL.RPN.NMS_THRESH',
        'MODEL.ROI_HEADS.IOU_THRESHOLDS', 'MODEL.ROI_HEADS.POSITIVE_FRACTION',
        'MODEL.ROI_HEADS.SCORE_THRESH_TEST', 'MODEL.ROI_HEADS.NMS_THRESH_TEST',
        'MODEL.RETINANET.IOU_THRESHOLDS', 'MODEL.RETINANET.SCORE_THRESH_TEST',
        'MODEL.RETINANET.NMS_THRESH_TEST'), (0, 1)),
    **dict.fromkeys((
        'MODEL.PIXEL_STD', 'MODEL.ANCHOR_GENERATOR.SIZES',
        'MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS', 'SOLVER.CLIP_GRADIENTS.CLIP_VALUE',
        'SOLVER.CLIP_GRADIENTS.NORM_TYPE'), (1e-6, math.inf)),
    'MODEL.BACKBONE.FREEZE_AT': (0, 5), 'SOLVER.LAYER_DECAY': (1e-3, 1),
    'SEED': (-math.inf, 2 ** 63 - 1),
}
_INT, _NUMBER, _TEXT = (int,), (int, float), (str,)
# What the elements of a tuple are, and how many there are: at least and at most.
_ELEMENTS: dict[str, tuple[tuple[type, ...], float, float]] = {
    'DATASETS.TRAIN': (_TEXT, 0, math.inf), 'DATASETS.TEST': (_TEXT, 0, math.inf),
    'INPUT.MIN_SIZE_TRAIN': (_INT, 1, math.inf), 'INPUT.CROP.SIZE': (_INT, 2, 2),
    'MODEL.PIXEL_MEAN': (_NUMBER, 3, 3), 'MODEL.PIXEL_STD': (_NUMBER, 3, 3),
    'MODEL.ANCHOR_GENERATOR.SIZES': (_NUMBER, 1, math.inf),
    'MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS': (_NUMBER, 1, math.inf),
    'MODEL.RPN.IOU_THRESHOLDS': (_NUMBER, 2, 2),
    'MODEL.ROI_HEADS.IOU_THRESHOLDS': (_NUMBER, 1, 1),
    'MODEL.RETINANET.IOU_THRESHOLDS': (_NUMBER, 2, 2), 'SOLVER.STEPS': (_NUMBER, 0, math.inf),
}
_NAMES: dict[tuple[type, ...], str] = {_INT: 'whole number', _NUMBER: 'number', _TEXT: 'text'}


def expected_instead(key: str, value: Any) -> str | None:
    """Say what a key takes, None where it takes the value.

    Args:
        key: of a detection config.
        value: in the type of the key.
    """
    least, most = _RANGES.get(key, _ANY)
    span = (f' from {least:g} to {most:g}' if math.isfinite(least) and math.isfinite(most)
            else f' of at least {least:g}' if math.isfinite(least)
            else f' of at most {most:g}' if math.isfinite(most) else '')
    if not isinstance(value, tuple):
        return None if _within(value, least, most) else f'a number{span}'
    if key not in _ELEMENTS:
        return None
    kinds, fewest, greatest = _ELEMENTS[key]
    found = _flat(value) if key.startswith('MODEL.ANCHOR_GENERATOR') else value
    ordered = key.endswith('IOU_THRESHOLDS') and greatest > 1
    if (fewest <= len(found) <= greatest and all(type(v) in kinds for v in found)
            and all(_within(v, least, most) for v in found)
            and (not ordered or list(found) == sorted(found))):
        return None
    count = (f'{fewest} ' if fewest == greatest else 'one or more ' if fewest else '')
    plural = '' if kinds == _TEXT or greatest == 1 else 's'
    return f'{count}{_NAMES[kinds]}{plural}{span}' + (', the lower one first' if ordered else '')


def _within(value: Any, least: float, most: float) -> bool:
    """Return whether a number is finite and in a range; anything else is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    return -math.inf < value < math.inf and least <= value <= most


def _flat(value: Any) -> tuple:
    """Return the leaves of nested tuples; an empty one is a leaf, and no number."""
    if not isinstance(value, tuple) or not value:
        return (value,)
    return tuple(leaf for part in value for leaf in _flat(part))
