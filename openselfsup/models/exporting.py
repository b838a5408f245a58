"""Backbones in timm's own form: a folder with weights, config and a model card."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from timm.layers import GluMlp
from timm.models.eva import Eva
from torch import Tensor, nn

from ..checkpoints import architecture_of
from ..checkpoints.loading import differences
from ..errors import UserError
from ..files import write_bytes, write_json, write_text
from .backbones.resnet import ResNet
from .backbones.timm_backbone import TimmBackbone

FILES = ('config.json', 'model.safetensors', 'README.md')


def export_to_timm(backbone: nn.Module, config: dict[str, Any], folder: Path,
                   mean: list[float], std: list[float], said: str) -> str:
    """Write a backbone into a folder, from which timm reads it as 'local-dir:FOLDER'.

    Args:
        backbone: a :class:`ResNet`, :class:`ResNeXt` or :class:`TimmBackbone`.
        config: what it was built from.
        folder: where ``model.safetensors``, ``config.json`` and ``README.md`` go.
        mean, std: normalisation of the images, three numbers each, for values in [0, 1].
        said: where the weights come from, for the card.

    Returns:
        What was written, in one line.

    Raises:
        UserError: timm has no such network, or the folder holds something else.
    """
    name, arguments, state = _in_timms_terms(backbone, config)
    described: dict[str, Any] = dict(
        architecture=name, num_classes=0, model_args=arguments, pretrained_cfg=dict(
            num_classes=0, mean=mean, std=std, interpolation='bicubic', crop_pct=1.0,
            input_size=[3, *[arguments.get('img_size', 224)] * 2]))
    if getattr(backbone, 'is_vit', False):
        described['resizing'] = backbone.resizing
    there = [one for one in FILES if (folder / one).exists()]
    if there and not (set(there) == {*FILES} and json.loads(
            (folder / 'config.json').read_text()).get('architecture') == name):
        raise UserError(f'this folder holds something else: {there[0]}', where=str(folder),
                        expected='another folder')
    write_bytes(folder / 'model.safetensors', safetensors.torch.save(
        {key: value.detach().cpu().contiguous() for key, value in state.items()}))
    write_json(folder / 'config.json', described, indent=1)
    write_text(folder / 'README.md', _card(name, said, mean, std, backbone))
    return f"{folder}: {len(state)} tensors of timm's {name}, config.json and README.md"


def _in_timms_terms(backbone: nn.Module, config: dict[str, Any]
                    ) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return timm's name of a network, what it is to be built with, and its tensors."""
    if isinstance(backbone, ResNet):
        state = backbone.state_dict()
        found = architecture_of(state)
        name = found.torchvision_name if found else None  # timm calls them the same
        plain = (config.get('norm_cfg') or {}).get('type', 'BN') in ('BN', 'SyncBN', 'SplitBN')
        if name and plain and hasattr(backbone, 'layer4') and config.get('in_channels', 3) == 3:
            return name, {}, dict(state)
    if not isinstance(backbone, TimmBackbone) or not backbone.is_vit and (
            backbone.out_indices[-1] != len(backbone.net.feature_info) - 1):
        raise UserError(f'timm has no network like this {type(backbone).__name__}',
                        where='model.backbone', expected='a whole TimmBackbone, or a ResNet or '
                        'ResNeXt of a usual width with batch norm and all of its layers')
    own = {'type', 'model', 'drop_path', 'uniform_drop_path', 'out_indices', 'in_channels',
           'resizing', 'feature', 'recompute', 'init_cfg'}
    arguments = {key: value for key, value in config.items() if key not in own}
    name = config['model'].partition('.')[0]
    if config.get('in_channels', 3) != 3:
        arguments['in_chans'] = config['in_channels']
    if backbone.is_vit:
        if isinstance(getattr(backbone.net.blocks[0], 'mlp', None), GluMlp):
            # A layer cannot be named in a file of timm's: a network that has it stands for it.
            name, arguments = 'vit_giant_patch14_dinov2', _geometry(backbone.net, arguments)
        norm = 'use_fc_norm' if isinstance(backbone.net, Eva) else 'fc_norm'
        arguments |= {'depth': len(backbone.net.blocks), 'dynamic_img_size': True, norm: False,
                      'img_size': backbone.net.patch_embed.img_size[0],
                      'global_pool': 'avg' if backbone.net.cls_token is None
                      or backbone.feature == 'mean' else 'token'}
    state = {key.removeprefix('net.'): value for key, value in backbone.state_dict().items()
             if key.startswith('net.')}
    if not backbone.is_vit:  # timm keeps a norm behind some that pretraining never sees
        whole = timm.create_model(name, pretrained=False, num_classes=0, **arguments).state_dict()
        state = {key: value for key, value in whole.items() if key.startswith('head.')} | state
    _refuse_what_timm_cannot_read(name, arguments, state)
    return name, arguments, state


def _geometry(net: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a gated ViT is to be built with, whatever timm's name of it was."""
    mlp, width = net.blocks[0].mlp, net.embed_dim
    hidden = mlp.fc1.out_features
    arguments = {key: value for key, value in arguments.items()
                 if key not in ('mlp_layer', 'act_layer')}
    if not isinstance(mlp.act, nn.SiLU):
        arguments['act_layer'] = 'gelu'
    return arguments | dict(
        patch_size=net.patch_embed.patch_size[0], embed_dim=width, reg_tokens=net.num_reg_tokens,
        num_heads=net.blocks[0].attn.num_heads, mlp_ratio=(hidden + 0.5) / width,
        # 0 means no LayerScale, too; timm takes a None for an argument that is not given.
        init_values=1e-5 if hasattr(net.blocks[0].ls1, 'gamma') else 0,
        no_embed_class=net.no_embed_class, class_token=net.cls_token is not None,
        qkv_bias=net.blocks[0].attn.qkv.bias is not None)


def _refuse_what_timm_cannot_read(name: str, arguments: dict[str, Any],
                                  state: dict[str, Tensor]) -> None:
    """Raise a UserError if timm would build another network than these weights are of."""
    try:
        with torch.device('meta'):
            own = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
        found = differences(state, own.state_dict())
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        found = str(error)
    if found:
        raise UserError(f"timm cannot be told to build this network: its {name} differs; {found}",
                        where='model.backbone', expected="one of timm's networks, changed in what "
                        'numbers say')


def _card(name: str, said: str, mean: list[float], std: list[float], backbone: nn.Module) -> str:
    left_out = ("\nThe token that stands for masked patches is not in it: timm has no place for "
                'it.\n' if getattr(backbone, 'is_vit', False) else '')
    if getattr(backbone, 'resizing', 'timm') != 'timm':
        left_out += ('\nFor images of another size than it was made for, timm interpolates its '
                     'positions in another way than its training did.\n')
    return f"""---
library_name: timm
tags: [histopathology, self-supervised]
---
# {name}

Pretrained by self-supervision with OpenSelfSup for pathology. {said}

```python
import timm
model = timm.create_model('local-dir:THIS_FOLDER', pretrained=True, num_classes=0).eval()
features = model(images)  # float (B, 3, H, W), values in [0, 1], normalised
```

Normalisation: mean {mean}, standard deviation {std}.
{left_out}
Its license, the tiles it was trained on and what it is fit for are for its authors to add.
"""
