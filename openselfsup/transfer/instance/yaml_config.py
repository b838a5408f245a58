"""Reads detectron2's YAML without detectron2: `_BASE_`, `KEY VALUE` overrides, known keys only.

The table below lists every key that the torchvision backend honours, with detectron2's
defaults where the two agree on a meaning. A key that is not in it is refused: a config
that is silently half followed would tell nobody.
"""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ...errors import UserError, nearest
from ...files import flat
from .ranges import expected_instead

DEFAULTS: dict[str, Any] = {
    'VERSION': 2, 'SEED': -1, 'OUTPUT_DIR': './output',
    'DATASETS.TRAIN': (), 'DATASETS.TEST': (),
    'DATALOADER.NUM_WORKERS': 4, 'DATALOADER.FILTER_EMPTY_ANNOTATIONS': True,
    'INPUT.FORMAT': 'BGR', 'INPUT.MIN_SIZE_TRAIN': (800,), 'INPUT.MAX_SIZE_TRAIN': 1333,
    'INPUT.MIN_SIZE_TRAIN_SAMPLING': 'choice', 'INPUT.MIN_SIZE_TEST': 800,
    'INPUT.MAX_SIZE_TEST': 1333, 'INPUT.RANDOM_FLIP': 'horizontal', 'INPUT.MASK_FORMAT': 'polygon',
    'INPUT.CROP.ENABLED': False, 'INPUT.CROP.TYPE': 'absolute', 'INPUT.CROP.SIZE': (256, 256),
    'MODEL.META_ARCHITECTURE': 'GeneralizedRCNN', 'MODEL.WEIGHTS': '', 'MODEL.MASK_ON': False,
    'MODEL.PIXEL_MEAN': (103.53, 116.28, 123.675), 'MODEL.PIXEL_STD': (1.0, 1.0, 1.0),
    'MODEL.BACKBONE.NAME': 'build_resnet_backbone', 'MODEL.BACKBONE.FREEZE_AT': 2,
    'MODEL.RESNETS.DEPTH': 50, 'MODEL.RESNETS.NORM': 'FrozenBN',
    'MODEL.RESNETS.OUT_FEATURES': ('res4',), 'MODEL.RESNETS.RES2_OUT_CHANNELS': 256,
    'MODEL.RESNETS.STRIDE_IN_1X1': True,
    'MODEL.FPN.IN_FEATURES': (), 'MODEL.FPN.OUT_CHANNELS': 256, 'MODEL.FPN.NORM': '',
    'MODEL.ANCHOR_GENERATOR.SIZES': ((32, 64, 128, 256, 512),),
    'MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS': ((0.5, 1.0, 2.0),),
    'MODEL.RPN.IN_FEATURES': ('res4',), 'MODEL.RPN.IOU_THRESHOLDS': (0.3, 0.7),
    'MODEL.RPN.BATCH_SIZE_PER_IMAGE': 256, 'MODEL.RPN.POSITIVE_FRACTION': 0.5,
    'MODEL.RPN.PRE_NMS_TOPK_TRAIN': 12000, 'MODEL.RPN.PRE_NMS_TOPK_TEST': 6000,
    'MODEL.RPN.POST_NMS_TOPK_TRAIN': 2000, 'MODEL.RPN.POST_NMS_TOPK_TEST': 1000,
    'MODEL.RPN.NMS_THRESH': 0.7,
    'MODEL.ROI_HEADS.NAME': 'Res5ROIHeads', 'MODEL.ROI_HEADS.NUM_CLASSES': 80,
    'MODEL.ROI_HEADS.IN_FEATURES': ('res4',), 'MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE': 512,
    'MODEL.ROI_HEADS.POSITIVE_FRACTION': 0.25, 'MODEL.ROI_HEADS.IOU_THRESHOLDS': (0.5,),
    'MODEL.ROI_HEADS.SCORE_THRESH_TEST': 0.05, 'MODEL.ROI_HEADS.NMS_THRESH_TEST': 0.5,
    'MODEL.ROI_BOX_HEAD.NAME': '', 'MODEL.ROI_BOX_HEAD.NUM_FC': 0,
    'MODEL.ROI_BOX_HEAD.FC_DIM': 1024,
    'MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION': 14, 'MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO': 0,
    'MODEL.ROI_MASK_HEAD.NAME': 'MaskRCNNConvUpsampleHead', 'MODEL.ROI_MASK_HEAD.NUM_CONV': 0,
    'MODEL.ROI_MASK_HEAD.CONV_DIM': 256, 'MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION': 14,
    'MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO': 0,
    'MODEL.RETINANET.NUM_CLASSES': 80, 'MODEL.RETINANET.SCORE_THRESH_TEST': 0.05,
    'MODEL.RETINANET.NMS_THRESH_TEST': 0.5, 'MODEL.RETINANET.TOPK_CANDIDATES_TEST': 1000,
    'MODEL.RETINANET.IN_FEATURES': ('p3', 'p4', 'p5', 'p6', 'p7'),
    'MODEL.RETINANET.IOU_THRESHOLDS': (0.4, 0.5),
    'SOLVER.IMS_PER_BATCH': 16, 'SOLVER.BASE_LR': 0.001, 'SOLVER.MAX_ITER': 40000,
    'SOLVER.STEPS': (30000,), 'SOLVER.GAMMA': 0.1, 'SOLVER.MOMENTUM': 0.9,
    'SOLVER.NESTEROV': False, 'SOLVER.WEIGHT_DECAY': 0.0001, 'SOLVER.WEIGHT_DECAY_NORM': 0.0,
    'SOLVER.WARMUP_ITERS': 1000, 'SOLVER.WARMUP_FACTOR': 0.001, 'SOLVER.WARMUP_METHOD': 'linear',
    'SOLVER.CHECKPOINT_PERIOD': 5000, 'SOLVER.AMP.ENABLED': False,
    'SOLVER.CLIP_GRADIENTS.ENABLED': False, 'SOLVER.CLIP_GRADIENTS.CLIP_TYPE': 'value',
    'SOLVER.CLIP_GRADIENTS.CLIP_VALUE': 1.0, 'SOLVER.CLIP_GRADIENTS.NORM_TYPE': 2.0,
    'TEST.EVAL_PERIOD': 0, 'TEST.DETECTIONS_PER_IMAGE': 100,
    'TEST.PRECISE_BN.ENABLED': False, 'TEST.PRECISE_BN.NUM_ITER': 200,
    'SOLVER.OPTIMIZER': 'SGD', 'SOLVER.LAYER_DECAY': 1.0,
}
# Keys that detectron2 has not: they are written down where they are used.
_OURS = ('SOLVER.OPTIMIZER', 'SOLVER.LAYER_DECAY')
# What a trained detector sees and where it looks, though no weight tells.
_SEEN = ('INPUT.FORMAT', 'MODEL.PIXEL_MEAN', 'MODEL.PIXEL_STD', 'MODEL.ANCHOR_GENERATOR.SIZES',
         'MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS')
_CHOICES: dict[str, tuple] = {
    'INPUT.FORMAT': ('BGR', 'RGB'), 'INPUT.MIN_SIZE_TRAIN_SAMPLING': ('choice', 'range'),
    'INPUT.RANDOM_FLIP': ('none', 'horizontal'), 'INPUT.MASK_FORMAT': ('polygon', 'bitmask'),
    'INPUT.CROP.TYPE': ('absolute',),
    'MODEL.RESNETS.NORM': ('BN', 'SyncBN', 'FrozenBN', 'GN'),
    'MODEL.FPN.NORM': ('', 'BN', 'SyncBN', 'FrozenBN', 'GN', 'LN'),
    'SOLVER.OPTIMIZER': ('SGD', 'AdamW'),
    'MODEL.RESNETS.DEPTH': (18, 34, 50, 101), 'SOLVER.WARMUP_METHOD': ('linear', 'constant'),
    'SOLVER.CLIP_GRADIENTS.CLIP_TYPE': ('value', 'norm', 'full_model'),
    'MODEL.META_ARCHITECTURE': ('GeneralizedRCNN', 'RetinaNet'),
    'MODEL.BACKBONE.NAME': ('build_resnet_backbone', 'build_resnet_fpn_backbone',
                            'build_retinanet_resnet_fpn_backbone', 'build_vit_simple_fpn_backbone'),
    'MODEL.ROI_HEADS.NAME': ('StandardROIHeads', 'Res5ROIHeads', 'Res5ROIHeadsExtraNorm',
                             'Res5ROIHeadsAnyDepth'),
    'MODEL.ROI_BOX_HEAD.NAME': ('', 'FastRCNNConvFCHead'),
    'MODEL.ROI_MASK_HEAD.NAME': ('MaskRCNNConvUpsampleHead',)}


class DetectionConfig:
    """Settings in detectron2's form: each key of :data:`DEFAULTS`.

    They are read as ``config['SOLVER.BASE_LR']``.

    Args:
        config_file: the YAML file; ``_BASE_`` in it names the file it goes on from.
        overrides: ``['KEY', 'VALUE', ...]`` as on detectron2's command line.

    Raises:
        UserError: all unknown keys and values of a wrong type, choice or range, at once, each
            with its file.
    """

    def __init__(self, config_file: str | Path, overrides: Sequence[str] = ()):
        self.path = str(config_file)
        self.values = dict(DEFAULTS)
        problems: list[str] = []
        for key, (value, where) in read_yaml(config_file).items():
            self._set(key, value, where, problems)
        for key, value in parse_overrides(overrides).items():
            self._set(key, value, 'command line', problems)
        if problems:
            raise UserError(f'{len(problems)} mistakes in this config:\n  '
                            + '\n  '.join(problems), where=self.path)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def _set(self, key: str, value: Any, where: str, problems: list[str]) -> None:
        if key not in DEFAULTS:
            close = nearest(key, DEFAULTS)
            problems.append(f'{where}: the torchvision backend knows no key {key}'
                            + (f"; did you mean '{close}'?" if close else ''))
            return
        default, value = DEFAULTS[key], literal(value)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if isinstance(default, tuple) and isinstance(value, list):
            value = _tuples(value)
        if isinstance(default, tuple) and key == 'INPUT.MIN_SIZE_TRAIN' and isinstance(value, int):
            value = (value,)
        if type(value) is not type(default):
            problems.append(f'{where}: {key} is {value!r}, expected a '
                            f'{type(default).__name__} such as {default!r}')
        elif key in _CHOICES and value not in _CHOICES[key]:
            problems.append(f'{where}: {key} is {value!r}, expected one of '
                            + ', '.join(repr(c) for c in _CHOICES[key]))
        elif expected := expected_instead(key, value):
            problems.append(f'{where}: {key} is {value!r}, expected {expected}')
        else:
            self.values[key] = value

    def changes(self, dumped: str) -> list[str]:
        """Return what differs from the config that a run was begun with, 'KEY was X, is now Y'.

        Args:
            dumped: what :meth:`dump` returned then.

        Raises:
            UserError: the model differs, so that its weights do not fit or mean something else.
        """
        before, now = self._before_and_now(dumped)
        other = [f'{key} was {before.get(key)!r}, is now {value!r}' for key, value in now.items()
                 if before.get(key) != value and key not in ('OUTPUT_DIR', 'MODEL.WEIGHTS')]
        model = [text for text in other if text.startswith(('MODEL.', *_OURS))
                 and not text.split()[0].endswith('_TEST')]
        if model:
            raise UserError(f'this run was begun with another model: {"; ".join(model)}',
                            where=self.path,
                            expected='the same model to --resume, or another OUTPUT_DIR')
        return other

    def refuse_other_sight(self, dumped: str, where: str) -> None:
        """Refuse to evaluate a detector on images and anchors other than it was trained on.

        Args:
            dumped: what :meth:`dump` returned when it was trained.
            where: file of the detector.

        Raises:
            UserError: they are others; says what to give.
        """
        before, now = self._before_and_now(dumped)
        other = {key: before[key] for key in _SEEN if before.get(key, now[key]) != now[key]}
        if other:
            raise UserError('this detector was trained with another ' + ', '.join(other),
                            where=where, expected=' '.join(f'{key} "{value}"' for key, value
                                                           in other.items()))

    def _before_and_now(self, dumped: str) -> tuple[dict[str, Any], dict[str, Any]]:
        before, now = ({key: DEFAULTS[key] for key in _OURS} | flat(yaml.safe_load(text))
                       for text in (dumped, self.dump()))
        return before, now

    def dump(self) -> str:
        """Return the whole config as YAML that detectron2 reads too."""
        tree: dict[str, Any] = {}
        for key, value in self.values.items():
            if key in _OURS and value == DEFAULTS[key]:
                continue
            *path, name = key.split('.')
            inner = tree
            for part in path:
                inner = inner.setdefault(part, {})
            inner[name] = _lists(value)
        return yaml.safe_dump(tree, sort_keys=True)


def read_yaml(path: str | Path, nested: bool = True,
              seen: tuple[str, ...] = ()) -> dict[str, tuple[Any, str]]:
    """Read a YAML file and its bases.

    Args:
        path: the file; the path of a ``_BASE_`` starts from its folder.
        nested: a mapping is a group of keys; otherwise it is a value like others.
        seen: files that led here.

    Returns:
        (value, file) by key, dotted where nested.

    Raises:
        UserError: a file is missing, not YAML, or its own base.
    """
    path = Path(path)
    if str(path.resolve()) in seen:
        raise UserError('this file is its own _BASE_', where=str(path))
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
    except OSError as error:
        beside = [p.name for p in path.parent.glob('*.yaml')] if path.parent.is_dir() else []
        raise UserError(error.strerror or str(error), where=str(path),
                        nearest=nearest(path.name, beside)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of bytes and of dates, too
        raise UserError(f'not valid YAML: {error}', where=str(path)) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError('this YAML holds no keys of text', where=str(path))
    base = content.pop('_BASE_', None)
    if base is not None and not isinstance(base, str):
        raise UserError(f'its _BASE_ is {base!r}', where=str(path), expected='a path')
    values = read_yaml(path.parent / base, nested, (*seen, str(path.resolve()))) if base else {}
    own = flat(content) if nested else content
    return {**values, **{key: (value, str(path)) for key, value in own.items()}}


def parse_overrides(words: Sequence[str]) -> dict[str, str]:
    """Pair up ``KEY VALUE KEY VALUE`` (``KEY=VALUE`` is understood as well).

    Raises:
        UserError: a key without a value.
    """
    split = [part for word in words for part in (word.split('=', 1) if '=' in word.split('.')[-1]
             and word.split('=')[0].replace('.', '').replace('_', '').isupper() else [word])]
    if len(split) % 2:
        raise UserError(f'{split[-1]} has no value', where='command line',
                        expected='KEY VALUE KEY VALUE ...')
    return dict(zip(split[::2], split[1::2]))


def literal(value: Any) -> Any:
    """Read text such as '(4000,)', '0.02' or 'True' as detectron2 does; other text stays."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _lists(value: Any) -> Any:
    return list(map(_lists, value)) if isinstance(value, (list, tuple)) else value
