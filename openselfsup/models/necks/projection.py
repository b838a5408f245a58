"""Projections of a whole image's features."""

from torch import Tensor, nn

from ...registry import NECKS
from ...values import Count
from ..parts import image_vectors


@NECKS.register_module()
class AvgPoolNeck(nn.Module):
    """Global average pooling and nothing else.

    Args:
        in_channels: channels C of the backbone's last feature map, None where nobody asks.
    """

    def __init__(self, in_channels: Count | None = None):
        super().__init__()
        self.in_channels = self.out_channels = in_channels

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map feature maps, the last of shape (B, C, h, w), to shape (B, C), not normalised."""
        return image_vectors(maps)


@NECKS.register_module()
class LinearNeck(nn.Module):
    """Global average pooling and one linear layer (MoCo v1, arXiv 1911.05722).

    Args:
        in_channels: channels C of the backbone's last feature map.
        out_channels: size D of the projection.
        with_avg_pool: see :func:`image_vectors`; without it C is C·h·w.
    """

    def __init__(self, in_channels: Count, out_channels: Count = 128, with_avg_pool: bool = True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.with_avg_pool = with_avg_pool
        self.fc = nn.Linear(in_channels, out_channels)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map feature maps, the last of shape (B, C, h, w), to shape (B, D), not normalised."""
        return self.fc(image_vectors(maps, self.with_avg_pool))


@NECKS.register_module(name=['NonLinearNeck', 'NonLinearNeckV1'])
class NonLinearNeck(nn.Module):
    """Global average pooling, linear layer, ReLU, linear layer (MoCo v2, arXiv 2003.04297).

    Args:
        in_channels: channels C of the backbone's last feature map.
        hid_channels: size of the hidden layer, ``in_channels`` if None.
        out_channels: size D of the projection.
        with_avg_pool: see :func:`image_vectors`; without it C is C·h·w.
    """

    def __init__(self, in_channels: Count, hid_channels: Count | None = None,
                 out_channels: Count = 128, with_avg_pool: bool = True):
        super().__init__()
        hid_channels = hid_channels or in_channels
        self.in_channels, self.out_channels = in_channels, out_channels
        self.with_avg_pool = with_avg_pool
        self.mlp = nn.Sequential(nn.Linear(in_channels, hid_channels), nn.ReLU(inplace=True),
                                 nn.Linear(hid_channels, out_channels))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map feature maps, the last of shape (B, C, h, w), to shape (B, D), not normalised."""
        return self.mlp(image_vectors(maps, self.with_avg_pool))


@NECKS.register_module(name=['DenseCLNeck', 'NonLinearNeckV1Dense'])
class DenseCLNeck(nn.Module):
    """A global and a dense projection side by side (DenseCL, arXiv 2011.09157, sec. 3.2).

    Args:
        in_channels: channels C of the backbone's last feature map.
        hid_channels: size of the hidden layers, ``in_channels`` if None.
        out_channels: size D of the projections.
    """

    def __init__(self, in_channels: Count, hid_channels: Count | None = None,
                 out_channels: Count = 128):
        super().__init__()
        hid_channels = hid_channels or in_channels
        self.in_channels, self.out_channels = in_channels, out_channels
        self.mlp = nn.Sequential(nn.Linear(in_channels, hid_channels), nn.ReLU(inplace=True),
                                 nn.Linear(hid_channels, out_channels))
        self.mlp2 = nn.Sequential(nn.Conv2d(in_channels, hid_channels, 1), nn.ReLU(inplace=True),
                                  nn.Conv2d(hid_channels, out_channels, 1))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Project the last feature map, of shape (B, C, h, w).

        Returns:
            The global projection (B, D), the dense one (B, D, h, w), and the mean of the dense
            one over its cells (B, D). None is normalised.
        """
        x = maps[-1]
        grid = self.mlp2(x)
        return self.mlp(x.mean((2, 3))), grid, grid.mean((2, 3))
