"""Projections with batch norm between their layers, under OpenSelfSup's names.

With ``sync_bn`` the norms see the rows of all ranks (:class:`BatchNormOverRanks`).
"""

import torch
from torch import Tensor, nn

from ...registry import NECKS
from ...values import BelowOne, Count
from ..norm import BatchNormOverRanks
from ..parts import at_least_float32, image_vectors, init_linear


def batch_norm(channels: int, sync_bn: bool, momentum: float = 0.1, affine: bool = True
               ) -> nn.Module:
    """Return a batch norm of vectors, over the rows of all ranks if ``sync_bn``."""
    cls = BatchNormOverRanks if sync_bn else nn.BatchNorm1d
    return cls(channels, momentum=momentum, affine=affine)


@NECKS.register_module()
class NonLinearNeckV0(nn.Module):
    """Linear layer, batch norm, ReLU, dropout, linear layer, ReLU: the features of ODC.

    Online deep clustering, arXiv 2006.10645. The batch norm has no weights of its own and
    remembers long (momentum 0.001).

    Args:
        in_channels: channels C of the backbone's last feature map.
        hid_channels: size of the hidden layer.
        out_channels: size D of the features.
        dropout: share of the hidden numbers that a training step leaves out.
        sync_bn: whether the norm sees the rows of all ranks.
        with_avg_pool: see :func:`image_vectors`; without it C is C·h·w.
    """

    def __init__(self, in_channels: Count, hid_channels: Count, out_channels: Count,
                 dropout: BelowOne = 0.5, sync_bn: bool = True, with_avg_pool: bool = True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.with_avg_pool = with_avg_pool
        self.fc0 = nn.Linear(in_channels, hid_channels)
        self.bn0 = batch_norm(hid_channels, sync_bn, momentum=0.001, affine=False)
        self.drop = nn.Dropout(dropout)
        self.fc1 = nn.Linear(hid_channels, out_channels)
        init_linear(self, 'kaiming')

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map feature maps, the last of shape (B, C, h, w), to shape (B, D), not negative."""
        hidden = self.bn0(self.fc0(image_vectors(maps, self.with_avg_pool))).relu()
        return self.fc1(self.drop(hidden)).relu()


@NECKS.register_module()
class NonLinearNeckV2(nn.Module):
    """Linear layer, batch norm, ReLU, linear layer (BYOL, arXiv 2006.07733, sec. 3.3).

    Args:
        in_channels: channels C of the backbone's last feature map, or of vectors.
        hid_channels: size of the hidden layer.
        out_channels: size D of the projection.
        sync_bn: whether the norm sees the rows of all ranks.
        with_avg_pool: see :func:`image_vectors`; False for a predictor, which takes vectors.
    """

    def __init__(self, in_channels: Count, hid_channels: Count, out_channels: Count,
                 sync_bn: bool = True, with_avg_pool: bool = True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.with_avg_pool = with_avg_pool
        self.mlp = nn.Sequential(nn.Linear(in_channels, hid_channels),
                                 batch_norm(hid_channels, sync_bn), nn.ReLU(inplace=True),
                                 nn.Linear(hid_channels, out_channels))
        init_linear(self, 'kaiming')

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map feature maps, the last of shape (B, C, h, w), to shape (B, D), not normalised."""
        return self.mlp(image_vectors(maps, self.with_avg_pool))


@NECKS.register_module()
class NonLinearNeckSimCLR(nn.Module):
    """Linear layers, each followed by a batch norm, with ReLU between them.

    SimCLR, arXiv 2002.05709, appendix B.9.

    Args:
        in_channels: channels C of the backbone's last feature map.
        hid_channels: size of all hidden layers.
        out_channels: size D of the projection.
        num_layers: number of linear layers.
        sync_bn: whether the norms see the rows of all ranks.
        with_bias: whether the linear layers have a bias.
        with_last_bn: whether the last layer is followed by a norm, too.
        with_avg_pool: see :func:`image_vectors`; without it C is C·h·w.
    """

    def __init__(self, in_channels: Count, hid_channels: Count, out_channels: Count,
                 num_layers: Count = 2, sync_bn: bool = True, with_bias: bool = False,
                 with_last_bn: bool = True, with_avg_pool: bool = True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_layers, self.with_avg_pool = num_layers, with_avg_pool
        sizes = [in_channels, *[hid_channels] * (num_layers - 1), out_channels]
        for i, (before, after) in enumerate(zip(sizes, sizes[1:])):
            self.add_module(f'fc{i}', nn.Linear(before, after, bias=with_bias))
            self.add_module(f'bn{i}', batch_norm(after, sync_bn)
                            if with_last_bn or i < num_layers - 1 else nn.Identity())
        init_linear(self, 'kaiming')

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map feature maps, the last of shape (B, C, h, w), to shape (B, D), not normalised."""
        x = image_vectors(maps, self.with_avg_pool)
        for i in range(self.num_layers):
            x = getattr(self, f'bn{i}')(getattr(self, f'fc{i}')(x.relu() if i else x))
        return x


@NECKS.register_module()
class RelativeLocNeck(nn.Module):
    """Global average pooling of two patches' maps side by side, linear layer, norm, ReLU, dropout.

    Context prediction, arXiv 1505.05192, as OpenSelfSup has it. The batch norm remembers long
    (momentum 0.003).

    Args:
        in_channels: channels C of each patch's map.
        out_channels: size D of what the head takes.
        dropout: share of the D numbers that a training step leaves out.
        sync_bn: whether the norm sees the rows of all ranks.
    """

    def __init__(self, in_channels: Count, out_channels: Count, dropout: BelowOne = 0.5,
                 sync_bn: bool = True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.fc = nn.Linear(2 * in_channels, out_channels)
        self.bn = batch_norm(out_channels, sync_bn, momentum=0.003)
        self.drop = nn.Dropout(dropout)
        init_linear(self, 'normal', std=0.005, bias=0.1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map maps of pairs, the last of shape (B, 2C, h, w), to shape (B, D), not negative."""
        with torch.autocast(maps[-1].device.type, enabled=False):
            # What the weights make is small beside the bias, which the norm takes away: half
            # precision would round most of it away before.
            x = self.fc(at_least_float32(image_vectors(maps)))
        return self.drop(self.bn(x).relu())
