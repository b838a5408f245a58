import math

import torch
from hypothesis import strategies as st
from strategies import given
from torch.testing import assert_close

from openselfsup.views.polygons import area, areas_in_unit_grid, clip, clip_to_unit_square


@st.composite
def convex_polygon(draw):
    """Points in order on an ellipse, not all of them distinct."""
    angles = sorted(draw(st.lists(st.floats(0, 6.28), min_size=3, max_size=6)))
    radius = [draw(st.floats(0.05, 1.5)), draw(st.floats(0.05, 1.5))]
    middle = [draw(st.floats(-0.5, 1.5)), draw(st.floats(-0.5, 1.5))]
    points = [[middle[0] + radius[0] * math.cos(a), middle[1] + radius[1] * math.sin(a)]
              for a in angles]
    return torch.tensor(points, dtype=torch.float64)


def test_known_areas():
    square = torch.tensor([[0., 0], [1, 0], [1, 1], [0, 1]])
    triangle = torch.tensor([[0., 0], [1, 0], [0, 1], [0, 1]])
    assert area(torch.stack([square, triangle, square.flip(0)])).tolist() == [1, 0.5, 1]


def test_a_corner_cut_off():
    square = torch.tensor([[0., 0], [1, 0], [1, 1], [0, 1]])
    diamond = (square - 0.5) @ torch.tensor([[1., 1], [-1, 1]]) + 0.5
    assert area(clip_to_unit_square(diamond)).item() == 1
    assert abs(area(clip(diamond, 0, 1., -1)).item() - 1.75) < 1e-6


@given(convex_polygon(), st.sampled_from([0, 1]), st.floats(-1, 2))
def test_two_half_planes_share_a_polygon(polygon, axis, bound):
    above, below = clip(polygon, axis, bound, 1), clip(polygon, axis, bound, -1)
    assert above.shape == (len(polygon) + 1, 2)
    assert_close(area(above) + area(below), area(polygon), rtol=1e-9, atol=1e-9)
    if area(above) > 1e-6:
        assert above[:, axis].min() >= bound - 1e-9
    if area(below) > 1e-6:
        assert below[:, axis].max() <= bound + 1e-9


@given(convex_polygon(), st.integers(1, 7), st.integers(1, 7))
def test_a_grid_shares_out_what_lies_in_it(polygon, rows, columns):
    shares = areas_in_unit_grid(polygon, (rows, columns))
    assert shares.shape == (rows, columns) and shares.min() >= 0
    assert_close(shares.sum(), area(clip_to_unit_square(polygon)), rtol=1e-9, atol=1e-9)
    # One cell, cut out by the other method.
    row, column = rows // 2, columns // 2
    cell = clip(clip(polygon, 0, column / columns, 1), 0, (column + 1) / columns, -1)
    cell = clip(clip(cell, 1, row / rows, 1), 1, (row + 1) / rows, -1)
    assert_close(shares[row, column], area(cell), rtol=1e-9, atol=1e-9)


def test_a_polygon_without_area_and_upright_sides():
    line = torch.tensor([[0.3, 0.1], [0.3, 0.9], [0.3, 0.9], [0.3, 0.5]])
    box = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
    shares = areas_in_unit_grid(torch.stack([line, box]), (2, 2))
    assert not shares[0].any()
    assert_close(shares[1], torch.full((2, 2), 0.0625))
