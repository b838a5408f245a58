"""The backbone of the toys, and batches for them: two convolutions, no batch norm."""

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
