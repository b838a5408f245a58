"""Real tiles with views whose place is known, and pictures read back at places in points."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from openselfsup.visualization.canvas import DPI

TILES = Path(__file__).parents[2] / 'data' / 'demo'
SIZE = 96


class Tiles:
    """A source of the six first tumour and stroma tiles; remembers what was read."""

    def __init__(self):
        self.paths = sorted(TILES.glob('kather2016/[TS]*/*.png'))[:6]
        self.was_read = []

    def read(self, i):
        self.was_read.append(i)
        return cv2.cvtColor(cv2.imread(str(self.paths[i])), cv2.COLOR_BGR2RGB)

    def path(self, i):
        return str(self.paths[i])


def cut(tile, crop, flip):
    """Return the view of a crop (top, left, height, width in fractions) and its map."""
    top, left, height, width = crop
    rows, cols = tile.shape[:2]
    part = tile[round(top * rows):round((top + height) * rows),
                round(left * cols):round((left + width) * cols)]
    view = cv2.resize(part[:, ::-1] if flip else part, (SIZE, SIZE))
    across = [-width, 0, left + width] if flip else [width, 0, left]
    return view, [across, [0, height, top]]


@pytest.fixture
def source():
    return Tiles()


@pytest.fixture
def make_batch(source):
    """Cut views from tiles: ``make_batch([(crop, flip), ...] per sample)``."""
    def make(samples):
        views, maps = [], []
        for i, sample in enumerate(samples):
            cuts = [cut(source.read(i), crop, flip) for crop, flip in sample]
            views.append([view for view, _ in cuts])
            maps.append([matrix for _, matrix in cuts])
        source.was_read.clear()
        per_view = torch.from_numpy(np.stack(views)).permute(1, 0, 4, 2, 3)
        return dict(views=list(per_view), view_to_tile=torch.tensor(maps, dtype=torch.float32),
                    index=torch.arange(len(samples)))
    return make


class Picture:
    """A PNG whose pixels are looked up by places in points, as it was drawn."""

    def __init__(self, path):
        self.pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)

    def at(self, x, y):
        return self.pixels[int(y * DPI / 72), int(x * DPI / 72)]

    def box(self, x, y, width, height):
        x0, y0, x1, y1 = (round(v * DPI / 72) for v in (x, y, x + width, y + height))
        return self.pixels[y0:y1, x0:x1]

    def is_color(self, x, y, color, tolerance=12):
        """Whether the pixel there or one next to it (lines snap to pixels) has a colour."""
        column, row = int(x * DPI / 72), int(y * DPI / 72)
        near = self.pixels[row - 1:row + 2, column - 1:column + 2]
        return bool((abs(near - rgb(color)) <= tolerance).all(axis=2).any())


def rgb(color):
    return np.array([int(color[i:i + 2], 16) for i in (1, 3, 5)])


@pytest.fixture
def picture():
    return Picture


@pytest.fixture
def count_color():
    """Count the pixels of an area [H, W, 3] that have a colour, all but exactly."""
    return lambda pixels, color: int((abs(pixels - rgb(color)) <= 12).all(axis=2).sum())
