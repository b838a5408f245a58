"""The backbone of the golden files of OpenSelfSup's methods, and how to compare with them."""

import numpy as np
import torch
from torch import nn


class ZooBackbone(nn.Module):
    """Two convolutions of these widths; with ``norm`` a batch norm between them."""

    def __init__(self, in_channels: int = 3, norm: bool = False, widths: tuple = (8, 12)):
        super().__init__()
        first, second = widths
        self.conv1 = nn.Conv2d(in_channels, first, 7, 4, 3, bias=not norm)
        self.bn1 = nn.BatchNorm2d(first) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(first, second, 3, 2, 1)
        self.out_channels = [second]

    def forward(self, x):
        return [torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x)))))]


def assert_golden(ours, golden, what, rtol=1e-5, atol=1e-6):
    """Compare a tensor with a golden array or tensor."""
    golden = torch.from_numpy(golden) if isinstance(golden, np.ndarray) else golden
    torch.testing.assert_close(ours.detach(), golden, rtol=rtol, atol=atol,
                               msg=lambda m: f'{what}: {m}')
