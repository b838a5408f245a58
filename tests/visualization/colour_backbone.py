"""A backbone whose features are known: the mean colours of cells."""

import torch
import torch.nn.functional as F
from torch import nn


class MeanColours(nn.Module):
    """Map images (B, 3, H, W) to their mean colours over cells of 16 px, or others; one map."""

    def __init__(self, patch_size=16):
        super().__init__()
        self.scale, self.patch_size = nn.Parameter(torch.ones(3, 1, 1)), patch_size

    def forward(self, images):
        return [F.avg_pool2d(images, self.patch_size) * self.scale]


PLAIN = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # pixels as they are, in 0..1
