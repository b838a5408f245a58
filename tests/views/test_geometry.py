import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from strategies import GOLDEN, affine_map, axis_aligned_map, given, golden_maps
from torch.testing import assert_close

from openselfsup.views import (
    cell_boxes,
    cell_centres,
    cell_polygons,
    compose,
    invert,
    is_axis_aligned,
)
from openselfsup.views.geometry import cell_corners, determinant, grid_shape, transform

IDENTITY = torch.eye(2, 3, dtype=torch.float64)


@given(affine_map(), affine_map(), affine_map())
def test_maps_form_a_group(a, b, c):
    assert_close(compose(compose(a, b), c), compose(a, compose(b, c)))
    assert_close(compose(invert(a), a), IDENTITY)
    assert_close(compose(a, invert(a)), IDENTITY)
    assert_close(determinant(compose(a, b)), determinant(a) * determinant(b))


@given(affine_map(), affine_map(), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_the_inner_map_comes_first(outer, inner, point):
    point = torch.tensor(point, dtype=torch.float64)
    assert_close(transform(compose(outer, inner), point), transform(outer, transform(inner, point)))


def test_batches_broadcast():
    outer, inner = torch.rand(3, 1, 2, 3), torch.rand(4, 2, 3)
    product = compose(outer, inner)
    assert product.shape == (3, 4, 2, 3)
    assert_close(product[2, 1], compose(outer[2, 0], inner[1]))
    assert_close(invert(product)[2, 1], invert(product[2, 1]))


def test_maps_keep_their_precision_under_autocast():
    a, b = torch.rand(5, 2, 3), torch.rand(5, 2, 3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = compose(a, b)
    assert torch.equal(inside, compose(a, b))


def test_golden_boxes():
    assert_close(cell_boxes(golden_maps().float(), 7),
                 torch.from_numpy(np.load(GOLDEN)['boxes']), rtol=1e-5, atol=1e-6)


@given(axis_aligned_map(), st.integers(1, 9), st.integers(1, 9))
def test_boxes_hold_their_polygons(to_tile, rows, columns):
    boxes, polygons = cell_boxes(to_tile, (rows, columns)), cell_polygons(to_tile, (rows, columns))
    assert boxes.shape == (rows, columns, 4) and polygons.shape == (rows, columns, 4, 2)
    assert_close(boxes[..., :2].flip(-1), polygons.amin(-2))
    assert_close(boxes[..., 2:].flip(-1), polygons.amax(-2))
    assert bool(is_axis_aligned(to_tile))


@given(affine_map(), st.integers(1, 6), st.integers(1, 6))
def test_the_middle_of_a_cell_is_that_of_its_corners(to_tile, rows, columns):
    centres = cell_centres(to_tile, (rows, columns))
    assert_close(centres, cell_polygons(to_tile, (rows, columns)).mean(-2))
    for row, column in (0, 0), (rows - 1, columns - 1):
        place = torch.tensor([(column + 0.5) / columns, (row + 0.5) / rows], dtype=torch.float64)
        assert_close(centres[row, column], transform(to_tile, place))


@given(affine_map(), st.integers(1, 6), st.integers(1, 6))
def test_cells_tile_their_view(to_tile, rows, columns):
    polygons = cell_polygons(to_tile, (rows, columns))
    corners = torch.tensor([[0., 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    outer = [polygons[0, 0, 0], polygons[0, -1, 1], polygons[-1, -1, 2], polygons[-1, 0, 3]]
    assert_close(torch.stack(outer), transform(to_tile, corners))
    assert torch.equal(polygons[:, :-1, 1], polygons[:, 1:, 0])  # neighbours share corners
    assert torch.equal(polygons[:-1, :, 3], polygons[1:, :, 0])


def test_a_flipped_view_lists_its_cells_in_its_own_order():
    flipped = torch.tensor([[-1., 0, 1], [0, 1, 0]])
    assert_close(cell_boxes(flipped, 2)[0, 0], torch.tensor([0, 0.5, 0.5, 1]))


def test_a_view_turned_by_45_degrees_is_not_axis_aligned():
    half = 0.5 ** 0.5
    turned = torch.tensor([[half, -half, 0.5], [half, half, 0]])
    assert not is_axis_aligned(turned)
    assert is_axis_aligned(torch.stack([turned, torch.eye(2, 3)])).tolist() == [False, True]


@pytest.mark.parametrize('grid', [0, -1, (3,), (3, 0), (1, 2, 3), (2.5, 2)])
def test_grids_are_checked(grid):
    with pytest.raises(ValueError, match='grid'):
        grid_shape(grid)


def test_corners_run_over_rows_first():
    corners = cell_corners(torch.eye(2, 3), (2, 4))
    assert corners.shape == (3, 5, 2)
    assert corners[1, 3].tolist() == [0.75, 0.5]


def test_a_small_view_is_axis_aligned_by_its_own_size():
    turned = torch.tensor([[0.8, -0.6, 0], [0.6, 0.8, 0]])
    upright = torch.tensor([[0, 1., 0], [-1., 1e-7, 0]])
    for size in (1, 1e-3, 1e-6):
        assert not is_axis_aligned(turned * size) and is_axis_aligned(upright * size)
