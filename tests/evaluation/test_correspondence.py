import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.evaluation.correspondence import (
    TURNS,
    Correspondence,
    correspondence,
    joined,
    summarize,
)
from openselfsup.views.geometry import compose, invert, transform

IDENTITY = torch.eye(2, 3)[None]
GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9))


def affine(angle=0.0, scale=(1.0, 1.0), shear=0.0, shift=(0.0, 0.0)):
    c, s = math.cos(angle), math.sin(angle)
    linear = (torch.tensor([[c, -s], [s, c]]) @ torch.tensor([[1, shear], [0, 1.0]])
              @ torch.diag(torch.tensor(scale)))
    return torch.cat([linear, torch.tensor(shift)[:, None]], dim=1)[None]


SCALES = st.floats(0.2, 1) | st.floats(-1, -0.2)
MAPS = st.builds(affine, st.floats(-4, 4), st.tuples(SCALES, SCALES),
                 st.floats(-0.5, 0.5), st.tuples(*2 * [st.floats(-0.5, 0.5)]))


def centres(grid):
    rows, columns = grid
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows,
                          (torch.arange(columns) + 0.5) / columns, indexing='ij')
    return torch.stack([x, y], dim=-1)


def encoded(places):
    """Encode places (h, w, 2) so that the nearest along both axes is the most similar."""
    angles = 0.3 * places
    return torch.cat([angles.cos(), angles.sin()], dim=-1).permute(2, 0, 1)[None]


@settings(max_examples=50)
@given(GRIDS, st.integers(0, 99), MAPS)
def test_identical_views_agree_everywhere(grid, seed, to_tile):
    features = torch.randn(1, 256, *grid, generator=torch.Generator().manual_seed(seed))
    found = correspondence(features, features, to_tile, to_tile)
    cells = grid[0] * grid[1]
    assert found.counted == found.right == cells
    assert found.overlap == 1 and found.turn == TURNS.index('upright')
    assert found.chance == pytest.approx(1)  # each of the cells with a chance of 1 / cells


@settings(max_examples=100)
@given(GRIDS, GRIDS, MAPS, MAPS)
def test_features_that_are_places_are_always_right(grid, other, to_tile, other_to_tile):
    a_to_b = compose(invert(other_to_tile.double()), to_tile.double())
    places = transform(a_to_b[0], centres(grid).double())
    found = correspondence(encoded(places), encoded(centres(other).double()), to_tile,
                           other_to_tile)
    inside = ((places > 1e-6) & (places < 1 - 1e-6)).all(-1).sum()
    assert found.counted >= inside and found.right == found.counted
    assert found.overlap == found.counted / (grid[0] * grid[1])


def test_random_features_score_as_a_guess_does():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 400, 8, 5, 7, generator=generator)
    to_tile = affine(0.3, (0.7, 0.6), shift=(0.3, 0.1)).expand(400, 2, 3)
    scores = summarize(correspondence(first, second, to_tile, affine().expand(400, 2, 3)))['all']
    assert scores['chance'] == pytest.approx(1 / 35)
    assert scores['score'] == pytest.approx(1 / 35, abs=0.006) and scores['cells'] > 8000


def test_features_that_are_all_alike_score_as_a_guess_does():
    same = torch.ones(1, 8, 5, 5)
    scores = summarize(correspondence(same, same, IDENTITY, IDENTITY))['all']
    assert scores == dict(score=pytest.approx(1 / 25), chance=pytest.approx(1 / 25), cells=25)


@pytest.mark.parametrize(('moved', 'right'), [(0.49, True), (0.51, False), (-0.49, True),
                                              (-0.51, False)])
def test_the_tolerance_is_half_a_cell(moved, right):
    # A's only cell lies `moved` cells of B from the centre of B's middle cell, its nearest.
    second = torch.zeros(1, 2, 1, 3)
    second[:, 0], second[:, 1, 0, 1] = 1, 5
    first = torch.tensor([0.0, 1])[None, :, None, None]
    to_tile = affine(shift=(moved / 3, 0))
    found = correspondence(first, second, to_tile, IDENTITY)
    assert found.counted == 1 and found.right == right


def test_on_a_common_edge_both_cells_are_right():
    for nearest in range(4):
        second = torch.zeros(1, 4, 1, 4)
        second[0, :, 0] = torch.eye(4)
        first = torch.eye(4)[nearest][None, :, None, None]  # its centre is B's middle
        found = correspondence(first, second, IDENTITY, IDENTITY)
        assert found.right == (nearest in (1, 2)) and found.chance == 0.5


def test_views_that_share_nothing_count_nothing():
    features = torch.randn(1, 4, 3, 3)
    found = correspondence(features, features, IDENTITY, affine(shift=(5.0, 0.0)))
    assert found.counted == found.right == found.chance == found.overlap == 0
    assert summarize(found) == {}


@given(st.floats(-3.1, 3.1), st.booleans(), MAPS)
def test_turns_are_relative_and_to_the_nearest_quarter(angle, mirror, to_tile):
    angle = round(angle, 2)
    relative = affine(angle, (-1.0 if mirror else 1.0, 1.0))
    features = torch.randn(1, 4, 3, 3)
    found = correspondence(features, features, compose(to_tile, relative), to_tile)
    nearest = TURNS[round(abs(angle) / (math.pi / 2))]
    assert TURNS[found.turn] == ('mirrored' if mirror else nearest)


def test_groups_add_up_and_cells_weigh_the_same():
    found = joined([
        Correspondence(torch.tensor([10.0]), torch.tensor([10.0]), torch.tensor([1.0]),
                       torch.tensor([0.2]), torch.tensor([0])),
        Correspondence(torch.tensor([30.0]), torch.tensor([0.0]), torch.tensor([3.0]),
                       torch.tensor([0.6]), torch.tensor([3]))])
    assert summarize(found) == {
        'all': dict(score=0.25, chance=pytest.approx(0.1), cells=40),
        'overlap_0_0.25': dict(score=1.0, chance=pytest.approx(0.1), cells=10),
        'overlap_0.5_0.75': dict(score=0.0, chance=pytest.approx(0.1), cells=30),
        'upright': dict(score=1.0, chance=pytest.approx(0.1), cells=10),
        'mirrored': dict(score=0.0, chance=pytest.approx(0.1), cells=30)}
