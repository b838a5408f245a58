import ast
import inspect
import math

import numpy as np
import pytest
import torch
from exact import exact_shares
from hypothesis import strategies as st
from strategies import (
    GOLDEN,
    affine_map,
    axis_aligned_map,
    given,
    golden_maps,
    pair_of_views,
)
from torch.testing import assert_close

from openselfsup.views import (
    ViewRecipe,
    cell_boxes,
    compose,
    geometry,
    match_cells,
    overlap,
    polygons,
)

GRIDS = st.tuples(st.integers(1, 8), st.integers(1, 8))


def brute_force(query, key, grid, key_grid):
    """Areas shared by the cells of two axis-aligned views, one pair of cells at a time."""
    shared = []
    for y0, x0, y1, x1 in cell_boxes(query, grid).view(-1, 4).tolist():
        for v0, u0, v1, u1 in cell_boxes(key, key_grid).view(-1, 4).tolist():
            height, width = min(y1, v1) - max(y0, v0), min(x1, u1) - max(x0, u0)
            shared.append(height * width if min(height, width) > 1e-9 else 0.)
    return torch.tensor(shared, dtype=torch.float64).view(math.prod(grid), math.prod(key_grid))


@pytest.mark.parametrize('path', ['axis_aligned', 'affine'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_golden_matching(path, dtype):
    golden, maps = np.load(GOLDEN), golden_maps().to(dtype)
    got = match_cells(maps[:, 0], maps[:, 1], 7, path)
    for name, golden_name in [('weight_q', 'weight_q'), ('weight_k', 'weight_k'),
                              ('match_q', 'match_q'), ('match_k', 'match_k'),
                              ('share_q', 'intersect_q'), ('share_k', 'intersect_k')]:
        value = getattr(got, name)
        assert value.dtype == dtype
        assert_close(value.float(), torch.from_numpy(golden[golden_name]), rtol=1e-5, atol=1e-6,
                     msg=lambda text, name=name: f'{name}: {text}')


@given(axis_aligned_map(), axis_aligned_map(), GRIDS, GRIDS)
def test_separable_path_against_pairs_of_boxes(query, key, grid, key_grid):
    shared = brute_force(query, key, grid, key_grid)
    got = match_cells(query[None], key[None], grid, key_grid=key_grid)
    area_q = query[:, :2].det().abs() / math.prod(grid)
    area_k = key[:, :2].det().abs() / math.prod(key_grid)
    assert_close(got.share_q[0], shared / area_q)
    assert_close(got.share_k[0], shared.T / area_k)
    assert_close(got.weight_q[0], shared.sum(1) / area_q)


@given(axis_aligned_map(), axis_aligned_map(), GRIDS, GRIDS)
def test_polygon_path_equals_separable_path(query, key, grid, key_grid):
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        a, b = (match_cells(query[None].to(dtype), key[None].to(dtype), grid, path, key_grid)
                for path in ('axis_aligned', 'affine'))
        for one, other in zip(a, b):
            assert_close(one, other, rtol=tolerance, atol=tolerance)


FEW_CELLS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@pytest.mark.parametrize('path', ['axis_aligned', 'affine'])
@given(st.data(), FEW_CELLS, FEW_CELLS)
def test_views_of_any_size_anywhere_against_rational_numbers(path, data, grid, key_grid):
    pair = data.draw(pair_of_views(path == 'axis_aligned'))
    for dtype in (torch.float32, torch.float64):
        query, key = (view.to(dtype) for view in pair)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            # In a batch with other views, so that nothing may be scaled by the batch
            got = match_cells(torch.stack([query, torch.eye(2, 3, dtype=dtype)]),
                              torch.stack([key, torch.eye(2, 3, dtype=dtype)]),
                              grid, path, key_grid)
        *shares, visible_q, visible_k = exact_shares(query, key, grid, key_grid)
        for share, weight, expected, visible, view in (
                (got.share_q[0], got.weight_q[0], shares[0], visible_q, query),
                (got.share_k[0], got.weight_k[0], shares[1], visible_k, key)):
            assert share.dtype == dtype
            # Parts thinner than 1e-9 of the tile are known less well, even in float64.
            seen = visible * view[:, :2].double().det().abs().sqrt() > 1e-9
            share, expected, weight = share[seen].double(), expected[seen], weight[seen].double()
            # Only what is thinner than 2^-16 of a cell is left out.
            found = share > 0
            assert_close(share[found], expected[found], rtol=2e-6, atol=2e-6)
            assert not len(expected[~found]) or expected[~found].max() < 2 ** -15
            assert_close(weight, expected.sum(1), rtol=0, atol=9 * 2 ** -16)


@pytest.mark.parametrize('path', ['axis_aligned', 'affine'])
@pytest.mark.parametrize('inside', [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize('side', [1., 1e-2, 1e-5])
def test_cells_almost_wholly_outside_keep_their_weight(path, inside, side):
    # The first of two columns reaches into the tile by this share of itself.
    query = torch.tensor([[[2 * side, 0, -side * (1 - inside)], [0, side, 0.3 - side / 4]]])
    whole = torch.eye(2, 3)[None]
    got = match_cells(query, whole, (1, 2), path, (1, 1))
    assert_close(got.weight_q, torch.ones(1, 2))
    back = match_cells(whole, query, (1, 1), path, (1, 2))
    assert_close(back.weight_k, torch.ones(1, 2))


@pytest.mark.parametrize('path', ['axis_aligned', 'affine'])
def test_views_of_224_pixels_on_a_slide(path):
    # 100,000 pixels wide: two views of 224 pixels, 10 apart, far from the origin, 7 x 7 cells.
    pixel = 1e-5
    query = torch.tensor([[[224 * pixel, 0, 0.9], [0, 224 * pixel, 0.7]]], dtype=torch.float64)
    key = query.clone()
    key[0, :, 2] += 10 * pixel
    got = match_cells(query, key, 7, path)
    line = torch.tensor([22 / 32] + [1.] * 6, dtype=torch.float64)
    assert_close(got.weight_q[0], torch.outer(line, line).flatten(), rtol=1e-9, atol=1e-9)
    rounded = match_cells(query.float(), key.float(), 7, path)
    # The maps themselves are rounded, by up to 0.006 pixels of 32.
    assert_close(rounded.weight_q, got.weight_q.float(), rtol=0, atol=1e-3)


def test_cells_far_outside_the_other_view_match_nothing():
    query = torch.tensor([[[32 / 224, 0, 0], [0, 215 / 224, 0]]], dtype=torch.float64)
    key = torch.tensor([[[35 / 224, 0, 0], [0, 21 / 224, 16 / 224]]], dtype=torch.float64)
    for path in ('axis_aligned', 'affine'):
        got = match_cells(query, key, (3, 1), path, (7, 1))
        assert got.weight_q[0, 0] > 0.2 and not got.weight_q[0, 1:].any(), path


def test_orientations_may_differ_within_a_batch():
    generator = torch.Generator().manual_seed(0)
    turns = torch.tensor([[[1., 0, 0], [0, 1, 0]], [[0, 1, 0], [1, 0, 0]], [[0, -1, 1], [1, 0, 0]],
                          [[-1, 0, 1], [0, -1, 1]]], dtype=torch.float64)
    crops = torch.zeros(2, 32, 2, 3, dtype=torch.float64)
    crops[..., 0, 0], crops[..., 1, 1] = 0.6, 0.7
    crops[..., 2] = torch.rand(2, 32, 2, generator=generator, dtype=torch.float64) * 0.3
    query, key = compose(crops, turns[torch.randint(4, (2, 32), generator=generator)])
    for grid in (3, (2, 5)):
        together = match_cells(query, key, grid)
        for i in range(32):
            alone = match_cells(query[i:i + 1], key[i:i + 1], grid)
            assert all(torch.equal(a[i], b[0]) for a, b in zip(together, alone))
            shared = brute_force(query[i], key[i], *[geometry.grid_shape(grid)] * 2)
            assert_close(together.share_q[i], shared / (0.42 / shared.shape[0]))


@given(affine_map(), affine_map(), GRIDS, GRIDS)
def test_any_matching_is_a_matching(query, key, grid, key_grid):
    got = match_cells(query[None].float(), key[None].float(), grid, 'affine', key_grid)
    for weight, match in ((got.weight_q, got.match_q), (got.weight_k, got.match_k)):
        assert weight.min() >= 0 and weight.max() <= 1 and match.min() >= 0
        rows = match.sum(-1)
        assert_close(rows, (weight > 0).float(), rtol=1e-5, atol=1e-5)
    back = match_cells(key[None].float(), query[None].float(), key_grid, 'affine', grid)
    assert_close(got.share_k, back.share_q, rtol=1e-4, atol=1e-4)


@given(affine_map(), GRIDS)
def test_a_view_against_itself_is_the_identity(view, grid):
    got = match_cells(view[None], view[None], grid, 'affine')
    visible = got.weight_q[0] > 0
    assert_close(got.weight_q[0][visible], torch.ones(int(visible.sum()), dtype=torch.float64))
    assert_close(got.match_q[0], torch.diag(visible.double()), rtol=1e-6, atol=1e-6)


@given(affine_map(), affine_map(), affine_map())
def test_what_happens_to_the_tile_as_a_whole_changes_nothing(query, key, change):
    # Shrunk into the tile, so that no cell is clipped before or after.
    linear = torch.cat([change[:, :2] * 0.1, torch.full((2, 1), 0.4)], dim=1)
    shrink = torch.tensor([[0.1, 0, 0.45], [0, 0.1, 0.45]], dtype=torch.float64)
    query, key = compose(shrink, query)[None], compose(shrink, key)[None]
    before = match_cells(query, key, 4, 'affine')
    after = match_cells(compose(linear, query), compose(linear, key), 4, 'affine')
    for one, other in zip(before[:2], after[:2]):
        assert_close(one, other, rtol=1e-6, atol=1e-6)


@given(affine_map(), affine_map())
def test_shares_by_counting_points(query, key):
    got = match_cells(query[None], key[None], 2, 'affine')
    fine = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    points = torch.cartesian_prod(fine, fine)
    on_tile = geometry.transform(query, points)
    inside = ((on_tile >= 0) & (on_tile <= 1)).all(-1)
    on_key = geometry.transform(geometry.invert(key), on_tile)
    seen = inside & ((on_key >= 0) & (on_key <= 1)).all(-1)
    (column_q, row_q), (column_k, row_k) = ((p * 2).long().T for p in (points, on_key))
    for q in range(4):
        in_q = inside & (row_q * 2 + column_q == q)
        if in_q.sum() < 300:
            continue
        for k in range(4):
            share = (in_q & seen & (row_k * 2 + column_k == k)).sum() / in_q.sum()
            assert abs(got.share_q[0, q, k] - share) < 0.08


@pytest.mark.parametrize('path', ['axis_aligned', 'affine'])
def test_cells_are_clipped_to_the_tile(path):
    whole = torch.eye(2, 3)[None]
    half_out = torch.tensor([[[1., 0, -0.5], [0, 1, 0]]])
    got = match_cells(half_out, whole, (1, 4), path)
    assert got.weight_q[0].tolist() == [0, 0, 1, 1]
    assert got.weight_k[0].tolist() == [1, 1, 0, 0]
    assert_close(got.match_q[0, 2:, :2], torch.eye(2))
    # Of a cell that lies across the edge only the inner part counts, also against itself.
    across = torch.tensor([[[1., 0, -0.4], [0, 1, 0]]])
    for key in (whole, across):
        got = match_cells(across, key, (1, 4), path)
        assert_close(got.weight_q[0], torch.tensor([0., 1, 1, 1]))


def test_small_cells_of_rotated_views_are_precise():
    recipe = ViewRecipe(224, [dict(type='RandomResizedCrop', scale=(0.01, 1.)),
                              dict(type='ShiftScaleRotate', p=1.)])
    generator, sizes = torch.Generator().manual_seed(0), torch.tensor([[1000, 1000]] * 200)
    query, key = (recipe.draw(sizes, generator)['view_to_tile'] for _ in range(2))
    got = match_cells(query, key, 7, 'affine')
    precise = match_cells(query.double(), key.double(), 7, 'affine')
    # Slivers thinner than the rounding of float32 are cut off there.
    for name in ('weight_q', 'share_k'):
        value, expected = getattr(got, name), getattr(precise, name)
        assert_close(value.double(), torch.where(value > 0, expected, 0.), rtol=1e-5, atol=5e-6)
        assert expected[value == 0].max() < 1e-4


@pytest.mark.parametrize('path', ['axis_aligned', 'affine'])
def test_cells_that_only_touch_do_not_match(path):
    third = torch.tensor([[[1 / 3, 0, 0], [0, 1, 0]]])
    rest = torch.tensor([[[2 / 3, 0, 1 / 3], [0, 1, 0]]])
    got = match_cells(third, rest, 3, path)
    assert not got.weight_q.any() and not got.match_q.any() and not got.match_k.any()
    same = match_cells(rest, rest, 7, path)
    assert_close(same.match_q[0], torch.eye(49), rtol=1e-5, atol=1e-6)
    assert int((same.match_q > 0).sum()) == 49


def test_precision_survives_autocast():
    maps = golden_maps().float()
    for path in ('axis_aligned', 'affine'):
        outside = match_cells(maps[:, 0], maps[:, 1], 7, path)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            inside = match_cells(maps[:, 0], maps[:, 1], 7, path)
        assert all(torch.equal(a, b) for a, b in zip(outside, inside))


@pytest.mark.parametrize('module', [overlap, polygons, geometry])
def test_nothing_waits_for_the_device(module):
    # The operations whose result's shape, or branch, depends on values on the device.
    waits = {'item', 'tolist', 'nonzero', 'masked_select', 'cpu', 'numpy', 'any', 'all', 'unique'}
    calls = {node.func.attr for node in ast.walk(ast.parse(inspect.getsource(module)))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}
    assert not calls & waits


@pytest.mark.parametrize('path', ['axis_aligned', 'affine'])
def test_shapes_do_not_depend_on_values(path):
    # Tensors without data: anything that would look at a value fails.
    query = torch.rand(5, 2, 3, device='meta')
    got = match_cells(query, query, (2, 3), path, key_grid=4)
    assert got.match_q.shape == (5, 6, 16) and got.match_k.shape == (5, 16, 6)
    assert got.weight_q.shape == (5, 6) and got.weight_k.shape == (5, 16)


def test_unknown_geometry_is_refused():
    maps = torch.eye(2, 3)[None]
    with pytest.raises(ValueError, match="'none'"):
        match_cells(maps, maps, 7, 'none')
