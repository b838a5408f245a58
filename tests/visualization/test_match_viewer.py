from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.visualization import match_sheet, match_views
from openselfsup.visualization.canvas import Panel
from openselfsup.visualization.match_viewer import (
    CELL_COLORS,
    CROSS,
    GREY,
    GREY_OPACITY,
    HEADER,
    LEFTS,
    MARGIN,
    PALE_OPACITY,
    SIDE,
    choose_cells,
)

TOP = MARGIN + HEADER
QUERY, KEY, TILE = (Panel(left, TOP, SIDE, SIDE) for left in LEFTS)
WHOLE = [((0, 0, 1, 1), False)] * 2
CROPS = [((0.1, 0.1, 0.6, 0.6), False), ((0.3, 0.35, 0.6, 0.6), True)]
GAP_MIDDLE = (QUERY.x + SIDE + KEY.x) / 2


@pytest.fixture
def sheet(tmp_path, picture, source):
    def draw(batch, matching, **options):
        return picture(match_sheet(batch, matching, tmp_path / 'matches.png', source=source,
                                   **options))
    return draw


def matching_of(match, weight_q=None, weight_k=None):
    """A matching of one pair of views from M^q, with weights 1 where nothing is said."""
    match = torch.as_tensor(match, dtype=torch.float32)[None]
    ones = torch.ones(match.shape[:2])
    weights = [ones if w is None else torch.as_tensor(w, dtype=torch.float32)[None]
               for w in (weight_q, weight_k)]
    return SimpleNamespace(weight_q=weights[0], weight_k=weights[1], match_q=match)


def middle(panel, cell, n=3):
    """A place inside a cell of an n x n grid, off its diagonals and its centre."""
    row, col = divmod(cell, n)
    return panel.at(((col + 0.5) / n, (row + 0.2) / n))


def around(seen, place):
    """Mean colour of 4 x 4 points: single pixels of an enlarged view differ from the view's."""
    return seen.box(place[0] - 2, place[1] - 2, 4, 4).mean(axis=(0, 1))


def test_weights_grey_out_and_pale_the_right_cells(sheet, make_batch):
    batch = make_batch([WHOLE])
    weight_q, weight_k = np.ones(9), np.ones(9)
    weight_q[2], weight_q[3], weight_k[7] = 0, 0.5, 0
    plain = sheet(batch, matching_of(np.zeros((9, 9))), followed=0)
    seen = sheet(batch, matching_of(np.zeros((9, 9)), weight_q, weight_k), followed=0)
    grey = np.array([int(GREY[i:i + 2], 16) for i in (1, 3, 5)])
    for panel, weights in ((QUERY, weight_q), (KEY, weight_k)):
        for cell, weight in enumerate(weights):
            before, after = (around(s, middle(panel, cell)) for s in (plain, seen))
            veil = (GREY_OPACITY, grey) if weight == 0 else (PALE_OPACITY * (1 - weight), 255)
            np.testing.assert_allclose(after, before * (1 - veil[0]) + veil[0] * veil[1], atol=2)
            crossed = seen.is_color(*panel.at(((cell % 3 + 0.3) / 3, (cell // 3 + 0.3) / 3)), CROSS,
                                    tolerance=25)
            assert crossed == (weight == 0)


def test_a_line_leads_from_a_cell_to_its_match(sheet, make_batch, count_color):
    match = np.zeros((9, 9))
    match[0, 6] = 1  # from the upper left cell to the lower left one
    weights = np.zeros(9)
    weights[0] = 1
    seen = sheet(make_batch([WHOLE]), matching_of(match, weights), followed=1)
    start, end = QUERY.at((1 / 6, 1 / 6)), KEY.at((1 / 6, 5 / 6))
    for t in (0.2, 0.5, 0.9):
        assert seen.is_color(*start + t * (end - start), CELL_COLORS[0])
    gap = seen.box(QUERY.x + SIDE + 2, TOP, KEY.x - QUERY.x - SIDE - 4, SIDE)
    assert 0 < count_color(gap, CELL_COLORS[0]) < 0.1 * gap.shape[0] * gap.shape[1]
    # both cells are outlined in the line's colour, others are not
    for panel, cell in ((QUERY, 0), (KEY, 6)):
        x, y = panel.at((cell % 3 / 3, cell // 3 / 3)) + 0.8
        assert seen.is_color(x, y + 20, CELL_COLORS[0], tolerance=40)
    x, y = KEY.at((1 / 3, 1 / 3)) + 0.8
    assert not seen.is_color(x, y + 20, CELL_COLORS[0], tolerance=40)


def test_a_larger_share_draws_a_thicker_line(sheet, make_batch, count_color):
    def thickness(share):
        match = np.zeros((9, 9))
        match[4, 4] = share
        weights = np.zeros(9)
        weights[4] = 1
        seen = sheet(make_batch([WHOLE]), matching_of(match, weights), followed=1)
        return count_color(seen.box(GAP_MIDDLE - 10, TOP, 20, SIDE), CELL_COLORS[0])
    assert thickness(1.0) > 1.5 * thickness(0.2) > 0
    assert thickness(0.0) == 0


def test_views_without_overlap_are_grey_and_unconnected(sheet, make_batch):
    apart = [((0, 0, 0.4, 0.4), False), ((0.5, 0.5, 0.4, 0.4), False)]
    batch = make_batch([apart])
    seen = sheet(batch, match_views(batch, (3, 3), 'axis_aligned'))
    gap = seen.box(QUERY.x + SIDE + 2, TOP, KEY.x - QUERY.x - SIDE - 4, SIDE)
    assert (gap == 255).all()
    for cell in range(9):
        for panel in (QUERY, KEY):
            assert np.ptp(around(seen, middle(panel, cell))) < 25  # next to no colour is left


def test_real_matches_of_49_cells_grey_exactly_the_cells_without_weight(sheet, make_batch):
    batch = make_batch([WHOLE, CROPS])
    matching = match_views(batch, (7, 7), 'axis_aligned')
    none = torch.zeros_like(matching.match_q)
    seen = sheet(batch, matching._replace(match_q=none), samples=[1], followed=0)
    weightless = matching._replace(weight_q=none[..., 0], weight_k=none[..., 0], match_q=none)
    grey = sheet(batch, weightless, samples=[1], followed=0)
    for panel, weights in ((QUERY, matching.weight_q[1]), (KEY, matching.weight_k[1])):
        same = [np.allclose(around(seen, middle(panel, c, 7)), around(grey, middle(panel, c, 7)))
                for c in range(49)]
        assert same == (weights == 0).tolist()
        assert 5 < sum(same) < 44


def test_followed_cells_are_marked_on_the_tile(sheet, make_batch, count_color):
    batch = make_batch([CROPS])
    matching = match_views(batch, (3, 3), 'axis_aligned')
    seen = sheet(batch, matching, followed=1)
    cell = choose_cells(matching.weight_q[0].numpy(), 3, 3, 1)[0]
    left, top = 0.1 + 0.2 * (cell % 3), 0.1 + 0.2 * (cell // 3)  # of the crop, 0.2 a cell
    for place in ((left + 0.1, top), (left, top + 0.1), (left + 0.2, top + 0.1)):
        assert seen.is_color(*TILE.at(place), CELL_COLORS[0], tolerance=40)


def test_only_the_pairs_asked_for_are_drawn(sheet, make_batch, source):
    batch = make_batch([CROPS] * 4)
    matching = match_views(batch, (3, 3), 'axis_aligned')
    one = sheet(batch, matching, samples=[2])
    assert source.was_read == [2]
    three = sheet(batch, matching)
    assert source.was_read == [2, 0, 1, 2]
    grown = three.pixels.shape[0] - one.pixels.shape[0]
    assert grown == pytest.approx(2 * (SIDE + 24) * 150 / 72, abs=2)


def test_a_matching_without_geometry_can_be_drawn(sheet, make_batch):
    batch = dict(make_batch([CROPS]), view_to_tile=None)
    seen = sheet(batch, matching_of(np.eye(9)), followed=3)
    assert len(np.unique(seen.box(*TILE).reshape(-1, 3), axis=0)) > 100  # the tile itself


def test_cells_need_not_be_as_many_in_both_directions(sheet, make_batch):
    batch = make_batch([CROPS])
    matching = match_views(batch, (2, 3), 'axis_aligned')
    seen = sheet(batch, matching, grid=(2, 3), followed=0)
    for fraction, crossed in ((1 / 2, True), (1 / 3, False)):  # a line between rows, or not
        row = seen.box(QUERY.x + 4, QUERY.at((0, fraction))[1] - 0.5, SIDE - 8, 1.0)
        blue = row[..., 2] - row[..., 0]
        above = seen.box(QUERY.x + 4, QUERY.at((0, fraction))[1] - 3.5, SIDE - 8, 1.0)
        assert (blue.mean() > (above[..., 2] - above[..., 0]).mean() + 20) == crossed
    with pytest.raises(ValueError, match='2 x 2'):
        sheet(batch, matching, grid=2)


def test_the_key_has_a_grid_of_its_own(sheet, make_batch):
    batch = make_batch([WHOLE])
    matching = match_views(batch, (3, 3), 'axis_aligned', key_grid=(2, 4))
    assert matching.weight_k.shape == (1, 8)
    none, grids = torch.zeros_like(matching.match_q), dict(grid=(3, 3), key_grid=(2, 4))
    matching = matching._replace(match_q=none)
    weights = torch.ones(1, 8)
    weights[0, 6] = 0
    full, crossed = (sheet(batch, matching._replace(weight_k=w), followed=0, **grids)
                     for w in (torch.ones(1, 8), weights))
    changed = np.argwhere((full.box(*KEY) != crossed.box(*KEY)).any(2)) / full.box(*KEY).shape[:2]
    assert changed.min(0) == pytest.approx([1 / 2, 2 / 4], abs=0.01)  # the cell of row 1, column 2
    assert changed.max(0) == pytest.approx([1, 3 / 4], abs=0.01)
    with pytest.raises(ValueError, match='3 x 3 does not have 8 cells'):
        sheet(batch, matching, grid=(3, 3))


@given(st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.7, 1.0]), min_size=12, max_size=12),
       st.integers(0, 8))
@settings(max_examples=60)
def test_chosen_cells_carry_weight(weights, count):
    weights = np.array(weights)
    chosen = choose_cells(weights, 3, 4, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, int((weights > 0).sum()))
    assert all(weights[cell] > 0 for cell in chosen)


def test_chosen_cells_lie_apart_and_prefer_weight():
    assert choose_cells(np.ones(49), 7, 7, 4) == [0, 6, 42, 48]
    weights = np.full(49, 0.01)
    weights[[8, 12, 36]] = 1
    assert choose_cells(weights, 7, 7, 3) == [8, 12, 36]
