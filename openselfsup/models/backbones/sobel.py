"""Edges in place of colours: a fixed Sobel layer in front of a backbone."""

from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints import channels_of
from ...registry import BACKBONES
from ..parts import built


class SobelLayer(nn.Module):
    """Vertical and horizontal edges of the grey image (DeepCluster, arXiv 1807.05520, sec. 3.3).

    Grey is the mean of the three normalised channels. Nothing is trained; the weights are tensors
    all the same, since published checkpoints hold them.
    """

    def __init__(self):
        super().__init__()
        grey, edges = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 3, padding=1)
        edge = torch.tensor([[1., 0., -1.], [2., 0., -2.], [1., 0., -1.]])
        with torch.no_grad():
            for parameter in (*grey.parameters(), *edges.parameters()):
                parameter.zero_()
            grey.weight.fill_(1 / 3)
            edges.weight.copy_(torch.stack([edge, edge.T])[:, None])
        self.sobel = nn.Sequential(grey, edges).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to edges (B, 2, H, W), in float32 at least.

        Under autocast too: differences of neighbours are near the rounding of half precision.
        """
        with torch.autocast(x.device.type, enabled=False):
            return self.sobel(x.to(next(self.parameters()).dtype))


@BACKBONES.register_module()
class SobelBackbone(nn.Module):
    """A backbone that sees the edges of images, with the layer that finds them.

    It is one module, so that whoever extracts it has both: without its Sobel layer a backbone of
    two input channels is of no use.

    Args:
        backbone: config of a backbone that takes images of two channels, such as
            ``dict(type='ResNet', depth=18, in_channels=2)``, or a module.

    Attributes:
        out_channels: channels of each returned feature map.
    """

    def __init__(self, backbone: dict | nn.Module):
        super().__init__()
        self.sobel_layer = SobelLayer()
        self.backbone = built(backbone, BACKBONES)
        self.out_channels = channels_of(self.backbone)

    @property
    def load_report(self) -> Any:
        """How many tensors the inner backbone's ``init_cfg`` filled, None without it."""
        return getattr(self.backbone, 'load_report', None)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images of shape (B, 3, H, W) to feature maps of shape (B, C, h, w)."""
        return self.backbone(self.sobel_layer(x))
