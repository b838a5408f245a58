"""Naming schemes of published weights, and the maps between them.

Everything here turns dicts of names into dicts of names; no file is touched and no model is
built. The common tongue for backbones is torchvision's (``conv1.weight``, ``bn1.weight``,
``layer1.0.conv1.weight``, ..., without ``fc``), which timm shares.

==================== ============================================================
kind                 names of the backbone
==================== ============================================================
ours                 ``encoder_q.backbone.*``
published PLM        ``encoder_q.0.*`` with a matching neck ``encoder_q.2.*``, and a
                     second copy ``backbone.*``
OpenSelfSup          ``encoder_q.0.*`` (MoCo, DenseCL), or ``backbone.*`` alone, which keeps
                     its prefix where there is a ``sobel_layer.*`` beside it
                     ``online_net.0.*`` where BYOL's second copy ``backbone.*`` is missing
CA2CL                ``module.resnet.*`` under ``net``
DINO                 ``backbone.*`` under ``teacher``, beside a ``student``
VICRegL              ``module.backbone.*`` under ``model``, beside two projectors
MoCo                 ``module.encoder_q.*`` (the official MoCo code)
detectron2           ``stem.conv1.*``, ``res2.0.*``, also below ``backbone.bottom_up.``
torchvision          no prefix: torchvision, timm, and our extracted weights
prefix 'a.b.'        any single other prefix in front of torchvision's names
==================== ============================================================

A checkpoint that says itself where its backbone is (:mod:`.backbone`) is ours, whatever its names.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import UserError
from .transformers import vision_transformer

OURS, PLM, OPENSELFSUP, CA2CL = 'ours', 'published PLM', 'OpenSelfSup', 'CA2CL'
MOCO, DETECTRON2, TORCHVISION = 'MoCo', 'detectron2', 'torchvision'
DINO, VICREGL = 'DINO', 'VICRegL'

# Where a checkpoint keeps its weights: ours and most others, CA2CL, VICRegL and detectron2, plain
# habit, DINO.
CONTAINERS = ('state_dict', 'net', 'model', 'model_state_dict', 'teacher')
# What wrappers put in front of every name: DataParallel, torch.compile.
_WRAPPERS = ('module.', '_orig_mod.')
# Prefixes in the order of preference: a file that has several is of the first kind.
_PREFIXES = (('encoder_q.0.', OPENSELFSUP), ('resnet.', CA2CL), ('encoder_q.', MOCO),
             ('backbone.', OPENSELFSUP), ('online_net.0.', OPENSELFSUP), ('', TORCHVISION))
OUR_PREFIX = 'encoder_q.backbone.'
SOBEL = 'sobel_layer.'  # in front of 'backbone.'


# ------------------------------------------------------------------ what is in the file

def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without the prefixes of wrappers.

    Args:
        checkpoint: what a file holds: the tensors themselves, or a dict that keeps them
            under ``state_dict``, ``net``, ``model``, ``model_state_dict`` or ``teacher``.

    Raises:
        UserError: there are no named tensors in it.
    """
    candidates = [checkpoint.get(key) for key in CONTAINERS] + [checkpoint]
    for candidate in candidates:
        if not isinstance(candidate, Mapping):
            continue
        state = {k: v for k, v in candidate.items()
                 if isinstance(k, str) and isinstance(v, Tensor)}
        if state:
            break
    else:
        raise UserError(f'no weights in this checkpoint; found {summary(checkpoint)}',
                        expected=f'tensors by name, at the top or under one of {CONTAINERS}')
    while prefix := next((w for w in _WRAPPERS if all(k.startswith(w) for k in state)), None):
        state = {k[len(prefix):]: v for k, v in state.items()}
    return state


def summary(checkpoint: Mapping[str, Any], limit: int = 6) -> str:
    """Say in a few words what a checkpoint holds: its top-level keys and first tensors."""
    inner = next((checkpoint[key] for key in CONTAINERS
                  if isinstance(checkpoint.get(key), Mapping)), checkpoint)
    tensors = [f"{name} ({'x'.join(map(str, value.shape)) or 'scalar'})"
               for name, value in inner.items() if isinstance(value, Tensor)]
    text = f'top-level keys: {shorten(checkpoint, limit)}'
    return text + (f'; first tensors: {shorten(tensors, limit)}' if tensors else '; no tensors')


def shorten(names: Any, limit: int = 6) -> str:
    """Join the first ``limit`` names with commas and count the others."""
    names = [str(name) for name in names]
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return (', '.join(names[:limit]) or 'none') + more


def detect(checkpoint: Mapping[str, Any]) -> str:
    """Return the kind of a checkpoint, see the table above.

    Raises:
        UserError: it holds no ResNet in any known naming scheme; what was found is said.
    """
    return _locate(checkpoint, weights_of(checkpoint))[0]


def backbone_state_dict(checkpoint: Mapping[str, Any],
                        where: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Return the backbone of a checkpoint under torchvision's names, and its kind.

    Of an encoder pair it is the query encoder's. A classifier ``fc`` is left out. Where the
    checkpoint says where its backbone is, the names are those of that backbone, all of them.

    Args:
        checkpoint: what a file of any known kind holds.
        where: path of the file, for messages.

    Raises:
        UserError: no known naming scheme; what was found is said.
    """
    try:
        state = weights_of(checkpoint)
        kind, prefix = _locate(checkpoint, state)
    except UserError as error:
        raise UserError(error.what, where=where, expected=error.expected) from None
    recorded = recorded_prefix(checkpoint) is not None
    found = {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)}
    if has_sobel(state) and not recorded:  # of use together only
        found = {k: v for k, v in state.items() if k.startswith((SOBEL, 'backbone.'))}
    if kind == DETECTRON2:
        found = from_detectron2({k: v for k, v in found.items()
                                 if k.startswith(('stem.', 'res'))})
    return {k: v for k, v in found.items() if recorded or not k.startswith('fc.')}, kind


def has_sobel(state: Mapping[str, Any]) -> bool:
    """Return whether weights are those of a Sobel layer and the backbone behind it.

    Their names are then those of :class:`openselfsup.models.backbones.sobel.SobelBackbone`.
    """
    return f'{SOBEL}sobel.0.weight' in state


def recorded_prefix(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the prefix of the backbone's names that the checkpoint itself gives, if it does."""
    meta = checkpoint.get('meta')
    record = meta.get('backbone') if isinstance(meta, Mapping) else None
    prefix = record.get('prefix') if isinstance(record, Mapping) else None
    return prefix if isinstance(prefix, str) else None


def _locate(checkpoint: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return the kind and the prefix of the backbone's names."""
    if (recorded := recorded_prefix(checkpoint)) is not None:
        if not any(name.startswith(recorded) for name in state):
            raise UserError(f"this checkpoint says that its backbone is '{recorded}', but no "
                            f'weights are called so; found {summary(checkpoint)}')
        return OURS, recorded
    if any(name.startswith(OUR_PREFIX) for name in state):
        return OURS, OUR_PREFIX
    prefixes = _prefixes_before(state, 'conv1.weight', 'layer1.0.conv1.weight')
    for prefix, kind in _PREFIXES:
        if prefix in prefixes:
            return (_of_openselfsup(checkpoint, state) if kind == OPENSELFSUP else kind), prefix
    if len(prefixes) == 1:
        return f"prefix '{prefixes[0]}'", prefixes[0]
    in_detectron2 = _prefixes_before(state, 'stem.conv1.weight', 'res2.0.conv1.weight')
    if len(in_detectron2) == 1:
        return DETECTRON2, in_detectron2[0]
    several = prefixes or in_detectron2
    if not several and (transformer := vision_transformer(state)):
        raise UserError(f'these weights are of a {transformer}, not of a ResNet',
                        expected="weights of a ResNet or ResNeXt, or a backbone=dict("
                        "type='TimmBackbone', model=...) for these")
    raise UserError(
        (f'several networks in this checkpoint, below {shorten(several)}' if several else
         'no ResNet weights in this checkpoint') + f'; found {summary(checkpoint)}',
        expected='weights named as by us, OpenSelfSup, PLM, CA2CL, VICRegL, DINO, MoCo, '
                 'torchvision, timm or detectron2; other networks of timm in a checkpoint of ours '
                 'or with the config.json that names them')


def _of_openselfsup(checkpoint: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Return the kind of a checkpoint whose backbone is named as OpenSelfSup names it."""
    if any(name.startswith('encoder_q.2.') for name in state):
        return PLM
    if isinstance(checkpoint.get('teacher'), Mapping):
        return DINO
    return VICREGL if any(name.startswith(('projector.', 'maps_projector.'))
                          for name in state) else OPENSELFSUP


def _prefixes_before(state: Mapping[str, Tensor], first: str, second: str) -> list[str]:
    """Return every prefix under which both names exist."""
    return sorted(name[:-len(first)] for name in state
                  if name.endswith(first) and name[:-len(first)] + second in state)


# ------------------------------------------------------------------ which network it is

class Architecture(NamedTuple):
    """A ResNet or ResNeXt told from the shapes of its weights.

    Attributes:
        family: 'ResNet' or 'ResNeXt'.
        depth: 18, 34, 50, 101 or 152.
        groups: groups of the 3x3 convolutions, 1 for a ResNet.
        width: channels of one group in layer1.
    """

    family: str
    depth: int
    groups: int
    width: int

    def __str__(self) -> str:
        if self.groups > 1:
            return f'{self.family}-{self.depth} ({self.groups}x{self.width}d)'
        return f'{self.family}-{self.depth}' + (f' of width {self.width}' if self.width != 64
                                                else '')

    @property
    def torchvision_name(self) -> str | None:
        """Name of the same network in torchvision.models, None if it has none."""
        if self.groups > 1:
            shape = (self.depth, self.groups, self.width)
            return {(50, 32, 4): 'resnext50_32x4d', (101, 32, 8): 'resnext101_32x8d',
                    (101, 64, 4): 'resnext101_64x4d'}.get(shape)
        return f'resnet{self.depth}' if self.width == 64 else None


_DEPTHS = {(False, (2, 2, 2, 2)): 18, (False, (3, 4, 6, 3)): 34, (True, (3, 4, 6, 3)): 50,
           (True, (3, 4, 23, 3)): 101, (True, (3, 8, 36, 3)): 152}


def architecture_of(state: Mapping[str, Tensor]) -> Architecture | None:
    """Tell the network from torchvision-style names and shapes, None if it is no known one."""
    if has_sobel(state):
        state = {name.removeprefix('backbone.'): value for name, value in state.items()}
    blocks = {tuple(map(int, found.groups())) for name in state
              if (found := re.fullmatch(r'layer([1-4])\.(\d+)\.conv1\.weight', name))}
    first, second, third, fourth = (sum(layer == i for layer, _ in blocks) for i in (1, 2, 3, 4))
    bottleneck = 'layer1.0.conv3.weight' in state
    depth = _DEPTHS.get((bottleneck, (first, second, third, fourth)))
    if depth is None or 'layer1.0.conv2.weight' not in state:
        return None
    shape = state['layer1.0.conv2.weight'].shape
    if len(shape) != 4 or 0 in shape:
        return None
    channels, width = shape[:2]
    groups = channels // width
    return Architecture('ResNeXt' if groups > 1 else 'ResNet', depth, groups, width)


# ------------------------------------------------------------------ detectron2

_TO_DETECTRON2 = (
    (r'^conv1\.', 'stem.conv1.'), (r'^bn1\.', 'stem.conv1.norm.'),
    (r'^layer([1-4])\.(\d+)\.', lambda m: f'res{int(m[1]) + 1}.{m[2]}.'),
    (r'^(res\d\.\d+\.)bn(\d)\.', r'\1conv\2.norm.'),
    (r'^(res\d\.\d+\.)downsample\.0\.', r'\1shortcut.'),
    (r'^(res\d\.\d+\.)downsample\.1\.', r'\1shortcut.norm.'))
_FROM_DETECTRON2 = (
    (r'^stem\.conv1\.norm\.', 'bn1.'), (r'^stem\.conv1\.', 'conv1.'),
    (r'^res([2-5])\.(\d+)\.', lambda m: f'layer{int(m[1]) - 1}.{m[2]}.'),
    (r'^(layer\d\.\d+\.)conv(\d)\.norm\.', r'\1bn\2.'),
    (r'^(layer\d\.\d+\.)shortcut\.norm\.', r'\1downsample.1.'),
    (r'^(layer\d\.\d+\.)shortcut\.', r'\1downsample.0.'))


def to_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a backbone from torchvision's names to those of detectron2's ResNet."""
    return _rename(state, _TO_DETECTRON2)


def from_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a backbone from the names of detectron2's ResNet to torchvision's."""
    return _rename(state, _FROM_DETECTRON2)


def _rename(state: Mapping[str, Tensor], rules: tuple) -> dict[str, Tensor]:
    def renamed(name: str) -> str:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return name
    return {renamed(name): value for name, value in state.items()}
