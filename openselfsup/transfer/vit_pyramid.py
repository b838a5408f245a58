"""A feature pyramid over a ViT, for networks that want maps of several strides (ViTDet)."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from ..checkpoints import backbone_record
from ..errors import UserError
from ..pretrained import known_config, published_network
from ..registry import BACKBONES

STRIDE = 16  # of the ViT's map as the pyramid has it


class SimpleFeaturePyramid(nn.Module):
    """Maps of several strides, each made by itself from the last map of a ViT.

    arXiv 2203.16527, sec. 3.

    Two transposed convolutions make a map four times as fine, one makes it twice as fine, max
    pooling twice as coarse. A 1 x 1 and a 3 x 3 convolution follow, each with a layer norm over
    channels.

    Args:
        in_channels: D of the ViT's map.
        out_channels: of every level.
        finest: stride of the finest level in pixels, 4 or 8; the coarsest has 32.
        extra: adds coarser levels, one of torchvision's; None for none.
    """

    def __init__(self, in_channels: int, out_channels: int, finest: int,
                 extra: ExtraFPNBlock | None = None):
        super().__init__()
        strides = [stride for stride in (4, 8, 16, 32) if stride >= finest]
        self.levels = nn.ModuleList(_level(in_channels, out_channels, s) for s in strides)
        self.extra = extra

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, D, H / 16, W / 16) to levels of (B, out_channels, ...), the finest first."""
        maps = [level(x) for level in self.levels]
        names = [str(i) for i in range(len(maps))]
        if self.extra is not None:
            maps, names = self.extra(maps, maps, names)
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
    """A ViT and its pyramid, under the names that torchvision's detectors have (body, fpn).

    Args:
        config: of the ViT; of its maps the last one is taken.
        channels: of every level.
        finest: stride of the finest level.
        extra: adds coarser levels.
    """

    def __init__(self, config: dict[str, Any], channels: int, finest: int, extra: ExtraFPNBlock):
        super().__init__()
        self.config, self.body = config, build_vit(config)
        self.fpn = SimpleFeaturePyramid(self.body.out_channels[-1], channels, finest, extra)
        self.out_channels = channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, H, W), both sides multiples of 32, to pyramid levels, finest first."""
        return self.fpn(map_of(self.body, x))


def map_of(vit: Any, images: Tensor) -> Tensor:
    """Return the last map of a ViT at stride 16, (B, D, H / 16, W / 16), whatever its patch.

    For patches of p pixels the ViT sees images at p / 16 of their size.

    Args:
        vit: a ``TimmBackbone``.
        images: (B, 3, H, W); sides that are no multiples of 16 are stretched to the nearest.
    """
    size = [max(round(side / STRIDE), 1) * vit.patch_size for side in images.shape[-2:]]
    if size != [*images.shape[-2:]]:
        images = F.interpolate(images, size, mode='bilinear', antialias=True)
    return vit(images)[-1]


def vit_of(checkpoint: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """Return the config of the ViT whose weights are in a checkpoint, None if it holds another.

    Args:
        checkpoint: what the file holds.
        path: of the file, for messages.

    Raises:
        UserError: a backbone that is not registered, or a ViT that cannot be told.
    """
    config: dict[str, Any] | None = None
    if (record := backbone_record(checkpoint, path)) is not None:
        config = known_config(record, path) if record.config is not None else None
    elif found := published_network(checkpoint, path):
        config = found.config
        if found.doubt:
            logging.getLogger(__name__).warning('%s', found.doubt)
    if config is None or config['type'] != 'TimmBackbone':
        return None
    return {**config, 'out_indices': [*(config.get('out_indices') or [-1])][-1:]}


def build_vit(config: dict[str, Any]) -> Any:
    """Return the ``TimmBackbone`` of a config.

    Raises:
        UserError: the network is no ViT.
    """
    backbone: Any = BACKBONES.build(config)
    if not backbone.is_vit:
        raise UserError(f"a pyramid is made of a ViT's map, {config['model']} is none",
                        where='the weights', expected='weights of a ViT or of a ResNet')
    return backbone
