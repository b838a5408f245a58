"""U-Net (arXiv 1505.04597) whose encoder is a pretrained ResNet or ViT."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.backbones.resnet import Depth, ResNet
from ..vit_pyramid import SimpleFeaturePyramid, build_vit, map_of


class UNet(nn.Module):
    """An encoder, and a decoder that takes up its maps of strides 32, 16, 8, 4 again.

    Those of a ViT are made of its last map by a :class:`SimpleFeaturePyramid`, which learns with
    the decoder.

    Args:
        depth: of the ResNet.
        classes: number of output channels.
        width: channels of the finest decoder stage; each coarser one has twice as many.
        vit: config of a ``TimmBackbone`` in place of the ResNet.

    Attributes:
        backbone: the encoder, under torchvision's names.
        pyramid: of a ViT, else None.
    """

    def __init__(self, depth: Depth, classes: int, width: int = 64,
                 vit: dict[str, Any] | None = None):
        super().__init__()
        self.backbone = ResNet(depth, out_indices=(1, 2, 3, 4)) if vit is None else build_vit(vit)
        c1, c2, c3, c4 = self.backbone.out_channels if vit is None else [4 * width] * 4
        self.pyramid = None if vit is None else SimpleFeaturePyramid(
            self.backbone.out_channels[-1], 4 * width, 4)
        self.up3 = _Up(c4, c3, 4 * width)
        self.up2 = _Up(4 * width, c2, 2 * width)
        self.up1 = _Up(2 * width, c1, width)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, H, W] to logits [B, classes, H, W]."""
        x1, x2, x3, x4 = (self.backbone(images) if self.pyramid is None else
                          self.pyramid(map_of(self.backbone, images)).values())
        x = self.up1(self.up2(self.up3(x4, x3), x2), x1)  # B x width x H/4 x W/4
        logits = self.classifier(x)
        return F.interpolate(logits.float(), images.shape[-2:], mode='bilinear',
                             align_corners=False)


class _Up(nn.Module):
    """Enlarge the coarse map to the fine one, join both, convolve twice."""

    def __init__(self, coarse: int, fine: int, out: int):
        super().__init__()
        self.convs = nn.Sequential(*_conv(coarse + fine, out), *_conv(out, out))

    def forward(self, x: Tensor, fine: Tensor) -> Tensor:
        x = F.interpolate(x, fine.shape[-2:], mode='bilinear', align_corners=False)
        return self.convs(torch.cat([x, fine], 1))


def _conv(channels: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
