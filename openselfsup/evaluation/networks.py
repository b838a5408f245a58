"""The networks of an evaluation: the checkpoint's backbone and untrained ones beside it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints import (
    BackboneRecord,
    backbone_record,
    backbone_state_dict,
    load,
    load_backbone_weights,
    weights_of,
)
from ..errors import UserError, nearest
from ..models.backbones.resnet import ResNet
from ..pretrained import known_config, published_network, with_sobel
from ..registry import BACKBONES
from ..training.normalization import Wanted, normalization_of

MODELS = {'resnet18': dict(type='ResNet', depth=18), 'resnet34': dict(type='ResNet', depth=34),
          'resnet50': dict(type='ResNet', depth=50), 'resnet101': dict(type='ResNet', depth=101),
          'resnext50': dict(type='ResNeXt', depth=50),
          'resnext101': dict(type='ResNeXt', depth=101)}


@dataclass
class Network:
    """A backbone and what is known about its weights.

    Attributes:
        backbone: in eval mode.
        config: what it was built from.
        report: how many tensors matched, in one line.
        wanted: normalisation of the input that the weights were trained with.
        head_classes: classes of a classifier in the checkpoint, None if it has none.
        sha256: of the weights of the backbone.
        reading: what its features depend on beside them, see :func:`reading_of`; '' for nothing.
        doubt: what the weights do not tell and had to be guessed, '' if nothing.
    """

    backbone: nn.Module
    config: dict[str, Any]
    report: str
    wanted: Wanted
    head_classes: int | None = None
    sha256: str = ''
    reading: str = ''
    doubt: str = ''


def named(model_name: str) -> dict[str, Any]:
    """Return the config of the backbone of a name.

    Raises:
        UserError: no such model.
    """
    if model_name not in MODELS:
        raise UserError(f"no model is called '{model_name}'", where='--model_name',
                        expected='one of ' + ', '.join(MODELS),
                        nearest=nearest(model_name, MODELS))
    return dict(MODELS[model_name])


def build(config: dict[str, Any], seed: int = 0) -> nn.Module:
    """Return a randomly initialised backbone; the generator of the caller is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BACKBONES.build(config).eval()


def from_checkpoint(model_name: str, path: str | Path, resizing: str | None = None) -> Network:
    """Return the backbone of a checkpoint of any kind that we can read.

    Args:
        model_name: a key of :data:`MODELS`; not asked if the checkpoint says that its backbone is
            no ResNet, or its weights are a vision transformer's.
        path: the file.
        resizing: how a published vision transformer fits its positions to other grids; told from
            its weights and from what is beside them if None.

    Raises:
        UserError: the file cannot be read, or not the normalisation of its run; not every tensor
            of the backbone is filled, its class is the user's own and not imported, or
            ``resizing`` has no meaning for it.
    """
    checkpoint = load(path)
    record, wanted = backbone_record(checkpoint, str(path)), normalization_of(path, checkpoint)
    found = published_network(checkpoint, path, resizing) if record is None else None
    if found:
        config = found.config
    elif resizing:
        raise UserError('there is nothing to choose: these weights are of no ViT, or say how they '
                        'were trained', where='--resizing', expected='a published ViT')
    else:
        config = _config(model_name, record, str(path))
        state, _ = backbone_state_dict(checkpoint, str(path))
        if record is None and 'backbone.conv1.weight' in state:  # there is a Sobel layer beside it
            config = with_sobel(config, state)
    backbone = build(config)
    report = load_backbone_weights(backbone, checkpoint)
    return Network(backbone, config, f'{path}: {report}', wanted, _head_classes(checkpoint),
                   weights_hash(backbone), ''.join(reading_of(backbone)),
                   found.doubt if found else '')


def _config(model_name: str, record: BackboneRecord | None, where: str) -> dict[str, Any]:
    """Return what to build for a checkpoint: what was asked for, with the norm it was trained with,
    or the class of the user's own that it says it is."""
    config = named(model_name)
    if record is None or record.config is None:
        return config
    known = known_config(record, where)
    if not record.is_resnet:
        return known
    return config | ({'norm_cfg': known['norm_cfg']} if known.get('norm_cfg') else {})


def reading_of(backbone: nn.Module) -> list[str]:
    """Return what features depend on beside the weights: a digest of what all parts are set to.

    Heads, activations, groups of a norm and the like are in no tensor. Nothing of a ResNet with
    batch norm, whose weights tell all.
    """
    parts = list(backbone.modules())
    if any(isinstance(part, ResNet) for part in parts) and not any(
            isinstance(part, nn.GroupNorm) for part in parts):
        return []
    told = [[name, type(part).__qualname__, sorted(
        (key, repr(value)) for key, value in vars(part).items()
        if not key.startswith('_') and key != 'training' and _is_plain(value))]
        for name, part in backbone.named_modules()]
    return [hashlib.sha256(json.dumps(told).encode()).hexdigest()]


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


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
