"""From a file of weights to a network that is ready to use, in one call."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .checkpoints import (
    BackboneRecord,
    Description,
    Transformer,
    architecture_of,
    authors_feature,
    backbone_record,
    backbone_state_dict,
    description_of,
    fitted_transformer,
    load,
    load_backbone_weights,
    told_resizing,
    transformer_config,
    transformer_of,
    weights_of,
)
from .errors import UserError
from .registry import ALGORITHMS, BACKBONES


def load_backbone(path: str | Path, depth: int | None = None,
                  out_indices: tuple[int, ...] | None = None, **arguments: Any) -> nn.Module:
    """Build the backbone that a file of weights belongs to, filled and in evaluation mode.

    ``load_backbone('work_dirs/demo/latest.pth')(images)`` gives a list of feature maps
    [B, C, h, w], one for each of ``out_indices``, of float images [B, 3, H, W] normalised as
    in training (ImageNet mean and standard deviation unless the config said otherwise).

    Args:
        path: our checkpoints and extracted weights, those of PLM, CA2CL, OpenSelfSup, MoCo,
            torchvision, timm and detectron2; vision transformers named as by DINO, iBOT, DINOv2,
            DINOv3, timm or Hugging Face, of which the network is told from the shapes; other
            networks of timm in a folder whose ``config.json`` names them.
        depth: refuse weights of another depth; by default the depth is told from the weights.
        out_indices: stages of a ResNet whose feature maps are returned, 0 to 4; by default the
            last one.
        arguments: further arguments of the backbone, such as ``norm_cfg``.

    Raises:
        UserError: the file cannot be read, holds no ResNet or ResNeXt and does not say what else,
            one of another depth, or a class of the user's own that is not imported.
    """
    checkpoint = load(path)
    record = backbone_record(checkpoint, str(path))
    if record is None and (found := published_network(checkpoint, path,
                                                      arguments.get('resizing'))):
        if found.doubt:
            logging.getLogger(__name__).warning('%s', found.doubt)
        return _network_of_timm(found.config | arguments, checkpoint, depth, out_indices, str(path))
    state, _ = backbone_state_dict(checkpoint, str(path))
    stages = {} if out_indices is None else dict(out_indices=tuple(out_indices))
    if record is None or record.config is None:
        plain = {name.removeprefix('backbone.'): value for name, value in state.items()}
        config = with_sobel(_resnet_config(plain, depth, str(path), arguments) | stages, state)
    else:
        config = known_config(record, str(path))
        _refuse_other_depth(record, state, depth, str(path))
        config = _changed(config, stages, arguments)
    backbone = BACKBONES.build(config)
    # What the published tool extracts lacks the Sobel layer, which is the same in all networks.
    lacks_sobel = 'conv1.weight' in state and config['type'] == 'SobelBackbone'
    report = load_backbone_weights(backbone.backbone if lacks_sobel else backbone, checkpoint)
    logging.getLogger(__name__).info('%s: %s: %s', path, architecture_of(state) or config['type'],
                                     report)
    return backbone.eval()


class PublishedNetwork(NamedTuple):
    """The network of timm that a checkpoint is of, which does not say so itself.

    Attributes:
        config: of its ``TimmBackbone``.
        doubt: a sentence on what its weights do not tell and had to be guessed, else ''.
    """

    config: dict[str, Any]
    doubt: str


def published_network(checkpoint: Mapping[str, Any], path: str | Path,
                      resizing: str | None = None) -> PublishedNetwork | None:
    """Return the network of a checkpoint that does not say what it is, None for a ResNet.

    A vision transformer is what the description beside its weights names, or told from names and
    shapes where there is none; another network of timm, such as a ConvNeXt, needs the description.

    Args:
        checkpoint: what the file holds.
        path: of the file, or of its folder, where there may be a description beside it.
        resizing: how a transformer's positions are fitted to other grids; told from names,
            description and shapes if None.

    Raises:
        UserError: the shapes are of no network that is known, the description is damaged, or
            ``resizing`` is given for another network.
    """
    try:
        state = weights_of(checkpoint)
    except UserError:
        return None
    found = transformer_of(state, 'teacher' in checkpoint and 'student' in checkpoint)
    if found is None:
        return _described(state, path, resizing)
    said = description_of(path)
    if named := _named_transformer(said, found, resizing):
        return PublishedNetwork(named, '')
    config = transformer_config(found, str(path), resizing)
    if resizing or 'resizing' not in config:
        return PublishedNetwork(config, '')
    rule, sure = told_resizing(found, said.architecture)
    config['resizing'] = said.resizing or rule
    return PublishedNetwork(config, '' if sure else (
        f'{path} does not tell how its positions are fitted to images of other sizes than '
        f"{config['img_size']} px: '{rule}' is taken, which is right for DINO and iBOT; for others "
        "give --resizing timm to openselfsup evaluate, or resizing='timm' to load_backbone."))


def _described(state: Mapping[str, Tensor], path: str | Path,
               resizing: str | None) -> PublishedNetwork | None:
    """Return the network that the description beside weights names, None for a ResNet or none."""
    said = description_of(path)
    if not said.architecture or architecture_of(state):
        return None
    if resizing:
        raise UserError(f'there is nothing to choose for a {said.architecture}, which has no '
                        'positions', where='resizing', expected='a ViT')
    return PublishedNetwork(_named(said), '')


def _named_transformer(said: Description, found: Transformer,
                       resizing: str | None) -> dict[str, Any] | None:
    """Return the ViT that a description names, None if it names none that the weights fit.

    A layer has no name in JSON, so the descriptions of some released models tell less than their
    weights do.
    """
    if not said.architecture:
        return None
    config = _named(said)
    if feature := authors_feature(found):
        config['feature'] = feature
    elif said.arguments.get('global_pool') == 'avg' and 'cls_token' in found.state:
        config['feature'] = 'mean'
    try:
        with torch.device('meta'):
            own = BACKBONES.build(config).state_dict()
        wanted = {name.removeprefix('net.'): value for name, value in own.items()
                  if name != 'mask_token'}
        state = fitted_transformer(found, wanted)
    except UserError:
        return None
    if any(name not in state or state[name].shape != value.shape
           for name, value in wanted.items()):
        return None
    if 'pos_embed' in wanted:
        config['resizing'] = (resizing or said.resizing
                              or told_resizing(found, said.architecture)[0])
    return config


def _named(said: Description) -> dict[str, Any]:
    """Return the config of the network that a description names."""
    own = ('num_classes', 'global_pool', 'dynamic_img_size')  # which a TimmBackbone sees to
    config = dict(type='TimmBackbone', model=said.architecture, **{
        key: value for key, value in said.arguments.items() if key not in own})
    if 'in_chans' in config:
        config['in_channels'] = config.pop('in_chans')
    return config


def _network_of_timm(config: dict[str, Any], checkpoint: Mapping[str, Any], depth: int | None,
                 out_indices: tuple[int, ...] | None, where: str) -> nn.Module:
    """Return a published network of timm, filled and in evaluation mode."""
    if depth is not None:
        raise UserError(f"these weights are of a {config['model']}, not of a ResNet of depth "
                        f'{depth}', where=where)
    if out_indices is not None:
        config['out_indices'] = tuple(out_indices)
    backbone = BACKBONES.build(config)
    report = load_backbone_weights(backbone, checkpoint)
    logging.getLogger(__name__).info('%s: %s: %s', where, config['model'], report)
    return backbone.eval()


def with_sobel(config: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the config of a ResNet, behind a Sobel layer if weights take two channels."""
    first = state.get('backbone.conv1.weight', state.get('conv1.weight'))
    if first is None or first.dim() != 4 or first.shape[1] != 2:
        return config
    return dict(type='SobelBackbone', backbone=config | dict(in_channels=2))


def _changed(config: dict[str, Any], stages: dict[str, Any],
             arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a recorded backbone with other stages and arguments.

    A ResNet, also one behind a Sobel layer, returns its last map unless it is asked for others.
    """
    if config['type'] == 'SobelBackbone':
        return {**config, 'backbone': _changed(config['backbone'], stages, arguments)}
    indices = config.get('out_indices')
    if config['type'] in ('ResNet', 'ResNeXt') and isinstance(indices, (list, tuple)):
        config = {**config, 'out_indices': tuple(indices[-1:])}
    return config | stages | arguments


def _resnet_config(state: dict[str, Tensor], depth: int | None, where: str,
                   arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the config of the ResNet or ResNeXt that weights belong to."""
    network = architecture_of(state)
    if network is None:
        raise UserError('these weights belong to no ResNet or ResNeXt of a known depth',
                        where=where)
    if depth not in (None, network.depth):
        raise UserError(f'these weights are of a {network}, not of depth {depth}', where=where)
    if 'bn1.running_mean' not in state and 'norm_cfg' not in arguments:
        raise UserError(
            'these weights were trained without BatchNorm', where=where,
            expected="the norm of that training, e.g. norm_cfg=dict(type='GN', num_groups=32)")
    if network.family == 'ResNeXt':
        arguments = dict(groups=network.groups, width_per_group=network.width) | arguments
    return dict(type=network.family, depth=network.depth, **arguments)


def _refuse_other_depth(record: BackboneRecord, state: dict[str, Tensor], depth: int | None,
                        where: str) -> None:
    """Raise a UserError if a depth is asked for that a recorded backbone has not."""
    assert record.config is not None, 'asked of a record that has one'
    if depth is None:
        return
    if not record.is_resnet:
        raise UserError(f"this backbone is a {record.config['type']}, not a ResNet of depth "
                        f'{depth}', where=where)
    network = architecture_of(state)
    if depth != (network.depth if network else record.config.get('depth')):
        raise UserError(f"these weights are of a {network or record.config['type']}, not of depth "
                        f'{depth}', where=where)


def known_config(record: BackboneRecord, where: str) -> dict[str, Any]:
    """Return the config that a checkpoint's backbone can be built from here.

    Modules that a checkpoint names are not imported: reading a file runs no code.

    Raises:
        UserError: its class is not registered; what to import is said.
    """
    config = record.config_for_use()
    assert config is not None, 'asked of a record that has one'
    try:
        BACKBONES.get(config['type'])
    except UserError:
        modules, words = ', '.join(record.imports), ' '.join(record.imports)
        raise UserError(
            f"the backbone of this checkpoint is a '{config['type']}', which is not registered",
            where=where, expected=f'{modules} to be imported first: by `import {modules}` in '
            f"Python, or by openselfsup evaluate --custom_imports {words}" if modules
            else 'the module that registers it to be imported first') from None
    if record.method in ALGORITHMS.names() and (feature := feature_of(config, record.method)):
        config['feature'] = feature  # of a run from before this was written
    return config


def feature_of(backbone: Mapping[str, Any], method: str | type) -> str | None:
    """Return what is to stand for an image, since its method trains that; None if it is told.

    Args:
        backbone: config of it.
        method: that trains it.
    """
    untold = backbone.get('type') == 'TimmBackbone' and backbone.get('feature') is None
    return ('mean' if untold and not getattr(ALGORITHMS.get(method), 'trains_class_token', False)
            else None)
