"""Views for property tests, their crops on a grid of pixels as real ones are."""

import math
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden' / 'plm_geometry_7x7.npz'
TILE = 224


def given(*args, **kwargs) -> Callable:
    """Hypothesis' given, with as many examples as a quick test can afford."""
    quick = hypothesis.settings(deadline=None, max_examples=30)
    return lambda test: quick(hypothesis.given(*args, **kwargs)(test))


def golden_maps() -> Tensor:
    """The views of the golden geometry as maps, float64 (12, 2, 2, 3)."""
    crops = torch.from_numpy(np.load(GOLDEN)['crops_top_left_height_width_flip'])
    top, left, height, width, flip = crops.unbind(-1)
    maps = torch.zeros(*crops.shape[:2], 2, 3, dtype=torch.float64)
    maps[..., 0, 0] = torch.where(flip > 0, -width, width)
    maps[..., 0, 2] = torch.where(flip > 0, left + width, left)
    maps[..., 1, 1], maps[..., 1, 2] = height, top
    return maps


@st.composite
def axis_aligned_map(draw) -> Tensor:
    """A crop of at least 20 pixels of a tile of 224, in one of eight orientations."""
    ends = []
    for _ in range(2):
        start = draw(st.integers(0, TILE - 20))
        ends.append((start, draw(st.integers(start + 20, TILE))))
    (left, right), (top, bottom) = ends
    if draw(st.booleans()):
        left, right = right, left
    if draw(st.booleans()):
        top, bottom = bottom, top
    to_tile = torch.tensor([[right - left, 0, left], [0, bottom - top, top]],
                           dtype=torch.float64) / TILE
    if draw(st.booleans()):
        to_tile[:, :2] = to_tile[:, :2].flip(-1)
    return to_tile


@st.composite
def pair_of_views(draw, axis_aligned: bool) -> tuple[Tensor, Tensor]:
    """Two maps that overlap, each of 1 to 1e-5 of the tile's side, anywhere on or across it."""
    sizes = [10 ** draw(st.floats(-5, 0)) for _ in range(2)]
    if draw(st.booleans()):
        sizes[1] = sizes[0] * draw(st.floats(0.5, 2))
    place = st.one_of(st.floats(0, 1), st.sampled_from([0., 1., 1 / 3, 0.5]))
    centre, apart = [draw(place), draw(place)], max(sizes)
    maps = []
    for size in sizes:
        first = draw(st.floats(0, 6.3))
        angles = first, first + draw(st.sampled_from([-1, 1])) * draw(st.floats(0.6, 2.5))
        if axis_aligned:
            quarter = draw(st.integers(0, 3))
            angles = [math.pi / 2 * q for q in (quarter, quarter + draw(st.sampled_from([1, 3])))]
        linear = torch.tensor([[math.cos(a) for a in angles], [math.sin(a) for a in angles]],
                              dtype=torch.float64)
        linear = torch.where(linear.abs() < 1e-9, 0., linear) * size
        linear[:, 0] *= draw(st.floats(0.5, 1))
        middle = torch.tensor([c + apart * draw(st.floats(-0.4, 0.4)) for c in centre],
                              dtype=torch.float64)
        maps.append(torch.cat([linear, (middle - linear.sum(1) / 2)[:, None]], dim=1))
    return tuple(maps)


@st.composite
def affine_map(draw) -> Tensor:
    """A parallelogram of area 0.01 or more that may leave the tile."""
    entries = st.floats(-1.25, 1.25, width=32)
    linear = torch.tensor([[draw(entries), draw(entries)], [draw(entries), draw(entries)]],
                          dtype=torch.float64)
    if linear.det().abs() < 0.01:
        linear = linear + torch.eye(2) * (2 if linear.trace() >= 0 else -2)
    middle = torch.tensor([draw(st.floats(0.2, 0.8)), draw(st.floats(0.2, 0.8))],
                          dtype=torch.float64)
    return torch.cat([linear, (middle - linear.sum(1) / 2)[:, None]], dim=1)
