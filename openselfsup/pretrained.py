"""From a file of weights to a network that is ready to use, in one call."""

import logging
from pathlib import Path
from typing import Any

from torch import nn

from .checkpoints import architecture_of, backbone_state_dict, load, load_backbone_weights
from .errors import UserError
from .registry import BACKBONES


def load_backbone(path: str | Path, depth: int | None = None, out_indices: tuple[int, ...] = (4,),
                  **arguments: Any) -> nn.Module:
    """Build the backbone that a file of weights belongs to, filled and in evaluation mode.

    ``load_backbone('work_dirs/demo/latest.pth')(images)`` gives a list of feature maps
    [B, C, h, w], one for each of ``out_indices``, of float images [B, 3, H, W] normalised as
    in training (ImageNet mean and standard deviation unless the config said otherwise).

    Args:
        path: our checkpoints and extracted weights, those of PLM, CA2CL, OpenSelfSup, MoCo,
            torchvision, timm and detectron2.
        depth: refuse weights of another depth; by default the depth is told from the weights.
        out_indices: stages whose feature maps are returned, 1 to 4.
        arguments: further arguments of the backbone, such as ``norm_cfg``.

    Raises:
        UserError: the file cannot be read, holds no ResNet or ResNeXt, or one of another depth.
    """
    checkpoint = load(path)
    state, _ = backbone_state_dict(checkpoint)
    network = architecture_of(state)
    if network is None:
        raise UserError('these weights belong to no ResNet or ResNeXt of a known depth',
                        where=str(path))
    if depth not in (None, network.depth):
        raise UserError(f'these weights are of a {network}, not of depth {depth}',
                        where=str(path))
    if 'bn1.running_mean' not in state and 'norm_cfg' not in arguments:
        raise UserError(
            'these weights were trained without BatchNorm', where=str(path),
            expected="the norm of that training, e.g. norm_cfg=dict(type='GN', num_groups=32)")
    if network.family == 'ResNeXt':
        arguments = dict(groups=network.groups, width_per_group=network.width) | arguments
    backbone = BACKBONES.build(dict(type=network.family, depth=network.depth,
                                    out_indices=tuple(out_indices), **arguments))
    report = load_backbone_weights(backbone, checkpoint)
    logging.getLogger(__name__).info('%s: %s: %s', path, network, report)
    return backbone.eval()
