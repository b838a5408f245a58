"""The head of DINO, iBOT and DINOv2: from features to logits of K prototypes."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry import HEADS
from ...values import Count, Range
from ..parts import at_least_float32

PROTOTYPES = 65536  # K, unless a config says it


class Prototypes(nn.Module):
    """A linear layer without bias whose rows are g_k v_k / ‖v_k‖ (arXiv 1602.07868).

    Args:
        in_channels: size of what it takes.
        count: number K of rows.
        trained_norm: whether g learns; else it stays 1.
    """

    def __init__(self, in_channels: int, count: int, trained_norm: bool):
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(count, 1), requires_grad=trained_norm)
        self.weight_v = nn.Parameter(nn.Linear(in_channels, count, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to logits (..., K)."""
        norm = self.weight_v.norm(dim=1, keepdim=True)
        return F.linear(x, self.weight_v * (self.weight_g / norm))


@HEADS.register_module()
class DINOHead(nn.Module):
    """An MLP, L2 normalisation, and weight-normalised prototypes (arXiv 2104.14294, appendix C).

    Its tensors have the names of the published ones.

    Args:
        in_channels: size D of the features; the method fills it in.
        prototypes: number K of logits. With n tiles a batch hardly more than n can be told apart:
            4,096 to 16,384 for n up to 256.
        hidden: width of the MLP.
        bottleneck: size of what is normalised.
        layers: linear layers of the MLP.
        trained_norm: whether the length g of each prototype learns, as in DINOv2; DINO and iBOT
            keep it 1 (``norm_last_layer``).
    """

    filled_in = ('in_channels',)  # by the method, not by a config

    def __init__(self, in_channels: Count, prototypes: Count = PROTOTYPES, hidden: Count = 2048,
                 bottleneck: Count = 256, layers: Annotated[int, Range(1)] = 3,
                 trained_norm: bool = False):
        super().__init__()
        self.in_channels, self.prototypes = in_channels, prototypes
        widths = [in_channels, *[hidden] * (layers - 1), bottleneck]
        parts: list[nn.Module] = []
        for narrow, wide in zip(widths, widths[1:]):
            parts += [nn.Linear(narrow, wide), nn.GELU()]
        self.mlp = nn.Sequential(*parts[:-1])
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = Prototypes(bottleneck, prototypes, trained_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (..., D) to logits (..., K), in the precision of autocast."""
        return self.last_layer(F.normalize(at_least_float32(self.mlp(x)), dim=-1))
