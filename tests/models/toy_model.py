"""The backbones of the toys, and batches for them: two convolutions, no batch norm."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

TILES, CLASSES = 20, ['gland', 'muscle', 'stroma']  # of the data set that methods are told of


class ToyBackbone(nn.Module):
    """56 px to 7 x 7 cells of 24 channels, optionally with a norm layer."""

    out_channels = [24]

    def __init__(self, norm: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 4, 3)
        self.conv2 = nn.Conv2d(16, 24, 3, 2, 1)
        self.norm = norm or nn.Identity()

    def forward(self, x):
        return [torch.relu(self.conv2(torch.relu(self.norm(self.conv1(x)))))]


class StagedBackbone(nn.Module):
    """56 px to stages 2, 3 and 4 of 14, 14 and 7 cells along a side, as ConCL's golden files."""

    out_channels, out_indices = [16, 16, 24], (2, 3, 4)

    def __init__(self, norm: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 4, 3)
        self.conv3 = nn.Conv2d(16, 16, 3, 1, 1)
        self.conv2 = nn.Conv2d(16, 24, 3, 2, 1)
        self.norm = norm or nn.Identity()

    def forward(self, x):
        second = torch.relu(self.norm(self.conv1(x)))
        third = torch.relu(self.conv3(second))
        return [second, third, torch.relu(self.conv2(third))]


class Tokens(NamedTuple):
    cls: torch.Tensor
    patches: torch.Tensor
    grid: tuple


class ToyViT(ToyBackbone):
    """The same cells as tokens that look at one another, beside a class and a mask token."""

    patch_size = 8

    def __init__(self, norm: nn.Module | None = None):
        super().__init__(norm)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 24))
        self.mask_token = nn.Parameter(torch.randn(1, 1, 24))
        self.qkv, self.last = nn.Linear(24, 72), nn.LayerNorm(24)

    def tokens(self, x, mask=None):
        grid = super().forward(x)[0]
        x = grid.flatten(2).mT
        x = x + 0 * self.mask_token if mask is None else torch.where(
            mask[..., None], self.mask_token.to(x.dtype), x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = self.last(x + nn.functional.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1)))
        return Tokens(x[:, 0], x[:, 1:], grid.shape[-2:])

    def forward(self, x):
        found = self.tokens(x)
        return [found.patches.mT.unflatten(2, found.grid)]


def maps_of_crops(crops, tile=224):
    """Turn (top, left, height, width, flip) in a tile's pixels, (..., 5), into maps (..., 2, 3)."""
    top, left, height, width, flip = np.moveaxis(crops.astype(float), -1, 0) / tile
    maps = np.zeros((*crops.shape[:-1], 2, 3))
    maps[..., 0, 0] = np.where(flip, -width, width)
    maps[..., 0, 2] = np.where(flip, left + width, left)
    maps[..., 1, 1], maps[..., 1, 2] = height, top
    return torch.tensor(maps, dtype=torch.float32)


def maps_of_boxes(boxes):
    """Turn grids of cell boxes (..., 7, 7, 4) into view-to-tile maps (..., 2, 3).

    A flipped view has its columns from right to left on the tile.
    """
    boxes = np.asarray(boxes, np.float64)
    flipped = boxes[..., 0, 0, 1] > boxes[..., 0, -1, 1]
    top, bottom = boxes[..., 0, 0, 0], boxes[..., -1, 0, 2]
    left = boxes[..., 1].min((-1, -2))
    right = boxes[..., 3].max((-1, -2))
    maps = np.zeros((*boxes.shape[:-3], 2, 3))
    maps[..., 0, 0] = np.where(flipped, left - right, right - left)
    maps[..., 0, 2] = np.where(flipped, right, left)
    maps[..., 1, 1] = bottom - top
    maps[..., 1, 2] = top
    return torch.tensor(maps, dtype=torch.float32)


def random_batch(rows, size=56, seed=0, dtype=torch.float32):
    """Return two views (rows, 3, size, size) and maps of random crops, some of them flipped."""
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(rows, 3, size, size, generator=generator, dtype=dtype) for _ in range(2)]
    extent = 0.4 + 0.5 * torch.rand(rows, 2, 2, generator=generator)
    corner = torch.rand(rows, 2, 2, generator=generator) * (1 - extent)
    flip = torch.rand(rows, 2, generator=generator) < 0.5
    maps = torch.zeros(rows, 2, 2, 3)
    maps[..., 0, 0] = torch.where(flip, -extent[..., 0], extent[..., 0])
    maps[..., 0, 2] = torch.where(flip, corner[..., 0] + extent[..., 0], corner[..., 0])
    maps[..., 1, 1], maps[..., 1, 2] = extent[..., 1], corner[..., 1]
    return views, maps.to(dtype)


def batch_for(algorithm, rows, seed=0, dtype=torch.float32):
    """Return a random batch, with a reference view for a method that finds concepts in it.

    Methods with a student and a teacher get two small views.
    """
    views, maps = random_batch(rows, seed=seed, dtype=dtype)
    if hasattr(algorithm, 'student'):
        small, places = random_batch(rows, 24, seed + 2000, dtype)
        return views + small, torch.cat([maps, places], 1)
    if not hasattr(algorithm, 'concepts'):
        return views, maps
    generator = torch.Generator().manual_seed(seed + 1000)
    ends = torch.cat([maps[..., 2], maps.sum(3)], 1)  # corners of both views, rows 4 2
    union = torch.diag_embed(ends.amax(1) - ends.amin(1))
    union = torch.cat([union, ends.amin(1)[..., None]], 2)
    return ([*views, torch.randn(views[0].shape, generator=generator, dtype=dtype)],
            torch.cat([maps, union[:, None]], 1))


def asked_for(algorithm, rows, seed=0):
    """Return what a method asks for beside views: of TILES tiles in CLASSES, one of them twice."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(TILES, generator=generator)[:rows]
    index[-1] = index[0]
    found = dict(index=index, label=torch.randint(len(CLASSES), (rows,), generator=generator))
    return {key: found[key] for key in algorithm.batch_keys}


def train_step(algorithm, views, maps):
    """Run forward and backward; return the outputs and the gradients of the query encoder."""
    algorithm.zero_grad()
    outputs = algorithm(views, maps, **asked_for(algorithm, len(views[0])))
    sum(value for key, value in outputs.items() if key.startswith('loss')).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in algorithm.named_parameters()
                 if parameter.grad is not None}
    return {key: value.detach() for key, value in outputs.items()}, gradients
