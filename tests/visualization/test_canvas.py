import numpy as np
import pytest
import torch

from openselfsup.visualization.canvas import (
    UNIT_SQUARE,
    VIEW_COLORS,
    Canvas,
    Panel,
    draw_view_frame,
    outline,
    shorten,
    to_image,
)
from openselfsup.visualization.overlays import draw_outlined


def test_a_panel_maps_fractions_to_points():
    panel = Panel(10, 20, 100, 50)
    np.testing.assert_allclose(panel.at([[0, 0], [1, 1], [0.5, 0.2]]),
                               [[10, 20], [110, 70], [60, 30]])


@pytest.mark.parametrize('height, width, expected', [
    (224, 224, (35, 20, 50, 50)), (100, 300, (10, 20 + 25 - 100 / 6, 100, 100 / 3)),
    (300, 100, (60 - 25 / 3, 20, 50 / 3, 50))])
def test_an_image_keeps_its_aspect_ratio_in_a_panel(height, width, expected):
    np.testing.assert_allclose(Panel(10, 20, 100, 50).fit(height, width), expected)


def test_an_image_lies_where_the_panel_says(tmp_path, picture):
    canvas = Canvas(60, 40)
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = 255, 0, 0
    canvas.image(image, Panel(20, 10, 20, 20))
    seen = picture(canvas.save(tmp_path / 'c.png'))
    assert seen.pixels.shape == (round(40 * 150 / 72), 60 * 150 / 72, 3)
    assert seen.at(36, 14).tolist() == [255, 0, 0]  # upper right quarter
    assert seen.at(24, 14).tolist() == seen.at(36, 26).tolist() == [0, 0, 0]
    assert seen.at(18, 14).tolist() == seen.at(42, 14).tolist() == [255, 255, 255]


@pytest.mark.parametrize('corners, tick', [
    ([[0, 0], [1, 0], [1, 1], [0, 1]], (20, 12)),  # as it is: top edge, left end
    ([[1, 0], [0, 0], [0, 1], [1, 1]], (80, 12)),  # flipped: top edge, right end
    ([[0, 1], [1, 1], [1, 0], [0, 0]], (20, 88)),  # upside down: bottom edge, left end
    ([[0, 0], [0, 1], [1, 1], [1, 0]], (12, 20)),  # transposed: left edge, upper end
    ([[1, 0], [1, 1], [0, 1], [0, 0]], (88, 20))])  # a quarter turn: right edge, upper end
def test_the_tick_tells_flips_and_turns_apart(tmp_path, picture, corners, tick):
    canvas = Canvas(100, 100)
    draw_view_frame(canvas, Panel(10, 10, 80, 80), corners, VIEW_COLORS[0], width=1.0)
    seen = picture(canvas.save(tmp_path / 'c.png'))
    places = [(20, 12), (80, 12), (20, 88), (80, 88), (12, 20), (12, 80), (88, 20), (88, 80)]
    assert [p for p in places if seen.is_color(*p, VIEW_COLORS[0])] == [tick]


def test_what_lies_outside_a_clip_is_not_drawn(tmp_path, picture):
    canvas = Canvas(100, 100)
    canvas.polygon(Panel(10, 10, 80, 80).at(UNIT_SQUARE), fill='#FF0000',
                   clip=Panel(10, 10, 40, 80))
    seen = picture(canvas.save(tmp_path / 'c.png'))
    assert seen.is_color(30, 50, '#FF0000') and seen.is_color(70, 50, '#FFFFFF')


def test_long_text_is_shortened_to_its_room():
    canvas = Canvas(300, 50)
    long = 'slides/TCGA-AA-0001/' + 'very_' * 20 + 'long_name.tif'
    assert canvas.text(0, 20, long) > 300
    assert 120 < canvas.text(0, 20, long, max_width=150) <= 150
    assert canvas.text(0, 20, 'short', max_width=150) == canvas.text(0, 20, 'short')


def test_text_is_never_taken_for_mathematics(tmp_path):
    canvas = Canvas(300, 50)
    width = canvas.text(0, 20, r'$\frac{cost$ $5$')
    canvas.save(tmp_path / 'c.png')  # as mathematics it would not parse
    assert width > canvas.text(0, 20, r'frac{cost 5')


@pytest.mark.parametrize('length', [1, 2, 3, 7, 10])
def test_shortened_text_keeps_its_ends(length):
    assert len(shorten('0123456789', length)) == length
    assert shorten('0123456789', 5) == '01…89'
    assert shorten('0123456789', 10) == '0123456789'


def test_outlines_are_those_of_classes_and_not_of_what_is_ignored():
    grey, colours = np.full((40, 40, 3), 128, np.uint8), [(0, 0, 0), (255, 0, 0)]

    def drawn(left, right):
        truth = np.full((40, 40), left, np.uint8)
        truth[:, 20:] = right
        return (draw_outlined(grey, truth, None, colours, 40) != grey).any(2)
    assert not drawn(0, 255).any() and not drawn(0, 0).any()
    assert drawn(1, 255)[:, :21].any() and not drawn(1, 255)[5:35, 26:].any()
    assert drawn(1, 1).any()


def test_the_outline_starts_at_the_upper_left_corner_of_the_view():
    flipped = torch.tensor([[-0.5, 0, 0.75], [0, 0.25, 0.5]])
    np.testing.assert_allclose(outline(flipped),
                               [[0.75, 0.5], [0.25, 0.5], [0.25, 0.75], [0.75, 0.75]])


def test_normalisation_is_undone_exactly(make_batch):
    view = make_batch([[((0, 0, 1, 1), False)]])['views'][0][0]
    normalize = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    mean, std = (torch.tensor(normalize[key]).view(3, 1, 1) for key in ('mean', 'std'))
    seen = (view / 255 - mean) / std
    expected = view.permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(to_image(seen, normalize), expected)
    np.testing.assert_array_equal(to_image(view), expected)
    assert abs(to_image(seen.bfloat16(), normalize).astype(int) - expected).max() <= 3
    with pytest.raises(ValueError, match='normalize'):
        to_image(seen)
