"""The networks of an evaluation: the checkpoint's backbone and untrained ones beside it."""

import ast
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints import detect, load, load_backbone_weights, weights_of
from ..checkpoints.names import OURS
from ..errors import UserError, nearest
from ..registry import BACKBONES
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD

MODELS = {'resnet18': dict(type='ResNet', depth=18), 'resnet34': dict(type='ResNet', depth=34),
          'resnet50': dict(type='ResNet', depth=50), 'resnet101': dict(type='ResNet', depth=101),
          'resnext50': dict(type='ResNeXt', depth=50),
          'resnext101': dict(type='ResNeXt', depth=101)}


@dataclass
class Network:
    """A backbone and what is known about its weights.

    Attributes:
        backbone: in eval mode.
        report: how many tensors matched, in one line.
        mean, std: normalisation of the input that the weights were trained with.
        head_classes: classes of a classifier in the checkpoint, None if it has none.
        sha256: of the weights of the backbone.
    """

    backbone: nn.Module
    report: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    head_classes: int | None = None
    sha256: str = ''


def build(model_name: str, seed: int = 0) -> nn.Module:
    """Return a randomly initialised backbone; the generator of the caller is left alone.

    Raises:
        UserError: no such model.
    """
    if model_name not in MODELS:
        raise UserError(f"no model is called '{model_name}'", where='--model_name',
                        expected='one of ' + ', '.join(MODELS),
                        nearest=nearest(model_name, MODELS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BACKBONES.build(dict(MODELS[model_name])).eval()


def from_checkpoint(model_name: str, path: str | Path) -> Network:
    """Return the backbone of a checkpoint of any kind that we can read.

    Raises:
        UserError: the file cannot be read, or not every tensor of the backbone is filled.
    """
    checkpoint = load(path)
    backbone = build(model_name)
    report = load_backbone_weights(backbone, checkpoint)
    mean, std = normalisation(checkpoint, str(path))
    network = Network(backbone, f'{path}: {report}', mean, std, _head_classes(checkpoint))
    network.sha256 = weights_hash(backbone)
    return network


def weights_hash(*modules: nn.Module) -> str:
    """Return one SHA-256 over the weights of modules."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
                          .tobytes())
    return digest.hexdigest()


def _head_classes(checkpoint: Mapping[str, Any]) -> int | None:
    """Return the classes of a classifier called ``fc``, None for a projection or none."""
    heads = [value for name, value in weights_of(checkpoint).items()
             if name.split('.')[-2:] == ['fc', 'weight'] and value.dim() == 2
             and 'neck' not in name and not name.startswith('encoder_')]
    return int(heads[0].shape[0]) if len(heads) == 1 else None


def normalisation(checkpoint: Mapping[str, Any],
                  where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of ``normalize`` in the config that our checkpoints carry.

    Checkpoints of others, which may carry any text there, are of ImageNet's normalisation.

    Args:
        checkpoint: what the file holds.
        where: path of the file.

    Raises:
        UserError: the config of a checkpoint of ours cannot be understood.
    """
    meta = checkpoint.get('meta')
    if detect(checkpoint) != OURS or not isinstance(meta, Mapping) or 'config' not in meta:
        return IMAGENET_MEAN, IMAGENET_STD
    try:
        found = _keywords(str(meta['config']), 'normalize')
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError('the config in this checkpoint is no Python, so its normalisation is '
                        'unknown', where=where) from None
    if found is None:
        return IMAGENET_MEAN, IMAGENET_STD
    pair = tuple(found.get('mean', ())), tuple(found.get('std', ()))
    if not all(len(values) == 3 and all(isinstance(v, (int, float)) and math.isfinite(v)
                                        for v in values) for values in pair) or min(pair[1]) <= 0:
        raise UserError(f"the normalisation in this checkpoint's config is mean={pair[0]}, "
                        f'std={pair[1]}', where=where,
                        expected='three finite numbers each, std above 0')
    return pair


def _keywords(text: str, name: str) -> dict[str, Any] | None:
    """Return the sequences that ``name = dict(...)`` holds in a text of Python."""
    for node in ast.parse(text).body:
        if (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == name and isinstance(node.value, ast.Call)):
            values = {k.arg: ast.literal_eval(k.value) for k in node.value.keywords}
            return {k: v for k, v in values.items() if isinstance(v, (list, tuple))}
    return None
