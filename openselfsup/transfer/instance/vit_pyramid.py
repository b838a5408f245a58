"""A feature pyramid over a ViT, for torchvision's detectors (ViTDet, arXiv 2203.16527)."""

from collections import OrderedDict
from typing import Any

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from ...checkpoints import backbone_record, transformer_config
from ...errors import UserError
from ...pretrained import known_config, published_transformer
from ...registry import BACKBONES
from .job import PLACEHOLDER
from .weights import read_backbone

NAME = 'build_vit_simple_fpn_backbone'  # MODEL.BACKBONE.NAME
KIND = 'torchvision detector'  # of our checkpoints
STRIDE = 16  # of the ViT's map as the pyramid has it


class SimpleFeaturePyramid(nn.Module):
    """Maps of several strides, each made by itself from the last map of a ViT (sec. 3).

    Two transposed convolutions make a map four times as fine, one makes it twice as fine, max
    pooling twice as coarse. A 1 x 1 and a 3 x 3 convolution follow, each with a layer norm over
    channels.

    Args:
        in_channels: D of the ViT's map.
        out_channels: of every level.
        finest: stride of the finest level in pixels, 4 or 8; the coarsest has 32.
        extra: adds coarser levels, one of torchvision's.
    """

    def __init__(self, in_channels: int, out_channels: int, finest: int, extra: ExtraFPNBlock):
        super().__init__()
        strides = [stride for stride in (4, 8, 16, 32) if stride >= finest]
        self.levels = nn.ModuleList(_level(in_channels, out_channels, s) for s in strides)
        self.extra = extra

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, D, H / 16, W / 16) to levels of (B, out_channels, ...), the finest first."""
        maps = [level(x) for level in self.levels]
        maps, names = self.extra(maps, maps, [str(i) for i in range(len(maps))])
        return OrderedDict(zip(names, maps))


def _level(width: int, channels: int, stride: int) -> nn.Sequential:
    half, quarter = width // 2, width // 4
    scaling: dict[int, tuple[list[nn.Module], int]] = {
        4: ([nn.ConvTranspose2d(width, half, 2, 2), LayerNorm2d(half), nn.GELU(),
             nn.ConvTranspose2d(half, quarter, 2, 2)], quarter),
        8: ([nn.ConvTranspose2d(width, half, 2, 2)], half),
        16: ([], width), 32: ([nn.MaxPool2d(2)], width)}
    layers, found = scaling[stride]
    return nn.Sequential(*layers, nn.Conv2d(found, channels, 1, bias=False), LayerNorm2d(channels),
                         nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                         LayerNorm2d(channels))


class ViTPyramid(nn.Module):
    """A ViT and its pyramid, under the names that torchvision gives them (body, fpn).

    Images are shown to the ViT at p / 16 of their size for patches of p pixels, so that its map
    has stride 16 in them, whatever its patch.

    Args:
        config: of the ViT, a ``TimmBackbone``; of its maps the last one is taken.
        channels: of every level.
        finest: stride of the finest level.
        extra: adds coarser levels.

    Raises:
        UserError: the network is no ViT.
    """

    def __init__(self, config: dict[str, Any], channels: int, finest: int, extra: ExtraFPNBlock):
        super().__init__()
        self.config = config
        self.body: Any = BACKBONES.build(config)
        if not self.body.is_vit:
            raise UserError(f"{config['model']} is no ViT", where='MODEL.WEIGHTS',
                            expected='weights of a ViT')
        self.fpn = SimpleFeaturePyramid(self.body.out_channels[-1], channels, finest, extra)
        self.out_channels = channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, H, W), both sides multiples of 32, to pyramid levels."""
        patch = self.body.patch_size
        if patch != STRIDE:
            x = F.interpolate(x, [side // STRIDE * patch for side in x.shape[-2:]],
                              mode='bilinear', antialias=True)
        return self.fpn(self.body(x)[-1])


def vit_of(path: str, where: str) -> dict[str, Any]:
    """Return the config of the ViT whose weights, or whose trained detector, is in a file.

    Args:
        path: MODEL.WEIGHTS.
        where: the config file, for messages.

    Raises:
        UserError: there is no file, or it holds no ViT.
    """
    if path in ('', PLACEHOLDER):
        raise UserError('this config starts from a ViT, which is told from its weights, and none '
                        'are given', where=where,
                        expected='MODEL.WEIGHTS FILE at the end of the command')
    checkpoint = read_backbone(path)
    config: dict[str, Any] | None = None
    if checkpoint.get('kind') == KIND:
        config = checkpoint.get('body')
    elif (record := backbone_record(checkpoint, path)) is not None and record.config is not None:
        config = known_config(record, path)
    elif found := published_transformer(checkpoint):
        config = transformer_config(found, path)
    if config is None or config['type'] != 'TimmBackbone':
        raise UserError('this file holds no ViT', where=path, expected='weights of a ViT, or a '
                        'config of a ResNet such as GlaS_R_18_FPN_1x_moco.yaml')
    return {**config, 'out_indices': [*(config.get('out_indices') or [-1])][-1:]}
