"""CA2CL's group neck: features as directions among learnt directions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry import NECKS
from ...values import Count


@NECKS.register_module()
class GroupNeck(nn.Module):
    """Global average pooling, cosine with each weight column, L2 norm (CA2CL, JBHI 2025).

    g = h' W' / ‖h' W'‖ with h' the normalised feature and W' the normalised columns; no bias.

    Args:
        in_channels: channels C of the backbone's last feature map.
        out_channels: number D of columns.
    """

    def __init__(self, in_channels: Count, out_channels: Count = 128):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(F.normalize(torch.rand(in_channels, out_channels) * 2 - 1,
                                               dim=0))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map feature maps, the last of shape (B, C, h, w), to unit vectors (B, D), float32."""
        h = maps[-1].mean((2, 3))
        with torch.autocast(h.device.type, enabled=False):
            h = F.normalize(h.to(self.weight.dtype), dim=1)
            return F.normalize(h @ F.normalize(self.weight, dim=0), dim=1)
