import numpy as np
import pytest
import torch

from openselfsup.visualization import view_sheet
from openselfsup.visualization.canvas import VIEW_COLORS, Panel, outline
from openselfsup.visualization.view_sheet import GAP, HEADER, HEADINGS, MARGIN

SIDE = 84.0
TOP = MARGIN + HEADER + HEADINGS
PANELS = [Panel(MARGIN + i * (SIDE + GAP), TOP, SIDE, SIDE) for i in range(3)]
CROPS = [((0.1, 0.2, 0.5, 0.5), False), ((0.3, 0.3, 0.6, 0.6), True)]
FAR_APART = [((0.05, 0.05, 0.4, 0.4), False), ((0.5, 0.5, 0.4, 0.4), True)]


@pytest.fixture
def sheet(tmp_path, picture):
    def draw(batch, **options):
        return picture(view_sheet(batch, tmp_path / 'views.png', **options))
    return draw


def test_the_outlines_lie_where_the_views_were_cut(sheet, make_batch, source):
    batch = make_batch([FAR_APART])
    seen = sheet(batch, source=source, rows=1, blocks=1)
    for v in range(2):
        corners = PANELS[0].at(outline(batch['view_to_tile'][0, v]))
        for corner, following in zip(corners, np.roll(corners, -1, axis=0)):
            assert seen.is_color(*(corner + following) / 2, VIEW_COLORS[v])
            assert not seen.is_color(*(corner + following) / 2, VIEW_COLORS[1 - v])


def test_the_tick_of_a_flipped_view_is_at_its_right(sheet, make_batch, source):
    seen = sheet(make_batch([FAR_APART]), source=source, rows=1, blocks=1)
    left, right = ((0.5 + x, 0.5) for x in (0.03, 0.37))  # of the second view, near the corners
    below = np.array([0, 2.2])  # under the thin outline, inside the thick tick
    assert seen.is_color(*PANELS[0].at(right) + below, VIEW_COLORS[1])
    assert not seen.is_color(*PANELS[0].at(left) + below, VIEW_COLORS[1])
    assert seen.is_color(*PANELS[0].at((0.08, 0.05)) + below, VIEW_COLORS[0])


def test_views_that_cover_the_same_place_both_show(sheet, make_batch, source, count_color):
    same = ((0.25, 0.25, 0.5, 0.5), False)
    seen = sheet(make_batch([[same, same]]), source=source, rows=1, blocks=1)
    tile = seen.box(*PANELS[0])
    assert count_color(tile, VIEW_COLORS[0]) > 50 and count_color(tile, VIEW_COLORS[1]) > 50


def test_each_view_stands_in_its_column(sheet, make_batch, source):
    batch = make_batch([CROPS])
    batch['views'][1] = 255 - batch['views'][1]
    seen = sheet(batch, source=source, rows=1, blocks=1)
    for v, panel in enumerate(PANELS[1:]):
        inside = seen.box(panel.x + 4, panel.y + 4, SIDE - 8, SIDE - 8).mean(axis=(0, 1))
        cells = batch['views'][v][0][:, 4:-4, 4:-4].float().mean(dim=(1, 2)).numpy()
        np.testing.assert_allclose(inside, cells, atol=3)
        assert seen.is_color(panel.x - 0.1, panel.y + SIDE / 2, VIEW_COLORS[v])


def test_normalised_views_look_like_the_bytes_they_came_from(tmp_path, make_batch, source):
    batch = make_batch([CROPS, CROPS])
    normalize = dict(mean=[0.5, 0.6, 0.7], std=[0.2, 0.25, 0.3])
    mean, std = (torch.tensor(normalize[key]).view(3, 1, 1) for key in ('mean', 'std'))
    model = dict(batch, views=[(view / 255 - mean) / std for view in batch['views']])
    first = view_sheet(batch, tmp_path / 'a.png', source=source)
    second = view_sheet(model, tmp_path / 'b.png', source=source, normalize=normalize)
    assert first.read_bytes() == second.read_bytes()


def test_views_stand_under_their_names(sheet, make_batch, source):
    batch = make_batch([CROPS])
    plain, named = (sheet(batch, source=source, rows=1, blocks=1, names=names)
                    for names in (None, ['strong', 'weak']))
    for v, panel in enumerate(PANELS):
        above = [seen.box(panel.x, panel.y - HEADINGS, SIDE, HEADINGS - 2)
                 for seen in (plain, named)]
        assert np.array_equal(*above) == (v == 0)  # the tile keeps its heading
    again = sheet(batch, source=source, rows=1, blocks=1, names=['view 1', 'view 2'])
    assert np.array_equal(again.box(*PANELS[2]), plain.box(*PANELS[2]))


def test_unknown_geometry_draws_no_outline(sheet, make_batch, source, count_color):
    batch = make_batch([CROPS])
    known = sheet(batch, source=source, rows=1, blocks=1).box(*PANELS[0])
    unknown = sheet(dict(batch, view_to_tile=None), source=source, rows=1, blocks=1)
    for color in VIEW_COLORS[:2]:
        assert count_color(known, color) > 50
        assert count_color(unknown.box(*PANELS[0]), color) == 0
    difference = abs(unknown.box(*PANELS[0]) - known).max(axis=2)
    assert (difference[:8] == 0).all()  # the same tile where no outline was


def test_no_more_is_drawn_than_there_is_room_for(sheet, make_batch, source):
    batch = make_batch([CROPS] * 5)
    two = sheet(batch, source=source, rows=1, blocks=2)
    assert source.was_read == [0, 1]
    five = sheet(batch, source=source, rows=8, blocks=2)
    assert source.was_read == [0, 1, 0, 1, 2, 3, 4]
    assert five.pixels.shape[1] == two.pixels.shape[1]
    row = five.pixels.shape[0] - two.pixels.shape[0]
    assert row == pytest.approx(2 * (SIDE + 20) * 150 / 72, abs=2)  # three rows, not one


def test_without_a_source_the_outlines_stand_on_an_empty_tile(sheet, make_batch):
    seen = sheet(make_batch([FAR_APART]), rows=1, blocks=1)
    assert seen.is_color(*PANELS[0].at((0.7, 0.2)), '#F1F1F1')
    assert seen.is_color(*PANELS[0].at((0.05, 0.25)), VIEW_COLORS[0])


def test_tiles_need_not_be_square(sheet, make_batch, source):
    batch = make_batch([FAR_APART])
    read = source.read
    source.read = lambda i: np.ascontiguousarray(read(i)[:112])
    seen = sheet(batch, source=source, rows=1, blocks=1)
    half = Panel(PANELS[0].x, TOP + SIDE / 4, SIDE, SIDE / 2)
    assert seen.is_color(*half.at((0.25, 0.45)), VIEW_COLORS[0])  # lower edge of view 1
    assert seen.is_color(*PANELS[0].at((0.9, 0.1)), '#FFFFFF')


def test_views_of_many_sizes_fill_equal_columns(sheet, make_batch, source):
    batch = make_batch([[*CROPS, ((0.4, 0.4, 0.2, 0.2), False)]])
    batch['views'][2] = batch['views'][2][:, :, ::2, ::2]
    seen = sheet(batch, source=source, rows=1, blocks=1)
    x = MARGIN + 3 * (SIDE + GAP)
    assert seen.is_color(x - 0.1, TOP + SIDE / 2, VIEW_COLORS[2])
    assert seen.is_color(x + SIDE + 0.1, TOP + SIDE / 2, VIEW_COLORS[2])
