"""The view that holds others: its box, its map, and its pixels by every renderer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from strategies import given

from openselfsup.views import (
    TorchRenderer,
    UnionView,
    ViewRecipe,
    render_opencv,
    render_pil,
    transform,
    unbind,
)

GOLDEN = Path(__file__).parents[1] / 'data/golden'
CROP = dict(type='RandomResizedCrop', scale=(0.1, 0.6))
STEPS = ['HorizontalFlip', 'VerticalFlip', 'QuarterTurn', 'Transpose', 'ShiftScaleRotate']
CORNERS = torch.tensor([[0., 0], [1, 0], [0, 1], [1, 1]], dtype=torch.float64)


def drawn_around(steps, sizes, seed, size=32):
    """Draw two views of tiles of these (height, width), and the one that holds them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(sizes)
    recipe = ViewRecipe(24, [CROP, *(dict(type=step) for step in steps)])
    views = [recipe.draw(sizes, generator) for _ in range(2)]
    union = UnionView(['query', 'key'], size)
    return views, union, union.around(views, sizes)


@given(steps=st.lists(st.sampled_from(STEPS), max_size=3), height=st.integers(8, 300),
       width=st.integers(8, 300), seed=st.integers(0, 1000))
def test_it_is_the_smallest_box_of_pixels_that_holds_the_views(steps, height, width, seed):
    views, _, drawn = drawn_around(steps, [[height, width]] * 3, seed)
    tile = torch.tensor([width, height])
    ends = torch.stack([transform(view['view_to_tile'].double()[:, None], CORNERS) * tile
                        for view in views], 1).flatten(1, 2)  # 3 8 2, x and y in pixels
    first = ends.amin(1).clamp_min(0)
    last = torch.minimum(ends.amax(1), tile)
    top, left, rows, columns = drawn['crop'].unbind(1)
    assert drawn['crop'].dtype == torch.int64 and (rows > 0).all() and (columns > 0).all()
    assert (top >= 0).all() and (top + rows <= height).all()
    assert (left >= 0).all() and (left + columns <= width).all()
    corner, end = torch.stack([left, top], 1), torch.stack([left + columns, top + rows], 1)
    # float32 fractions, of tiles of 300 pixels
    assert (corner <= first + 1e-3).all() and (end >= last - 1e-3).all()
    assert (corner + 1 > first - 1e-3).all() and (end - 1 < last + 1e-3).all()
    maps = drawn['view_to_tile']
    assert maps.dtype == torch.float32 and not maps[:, [0, 1], [1, 0]].any()
    on_tile = transform(maps.double()[:, None], CORNERS[[0, 3]]) * tile
    torch.testing.assert_close(on_tile, torch.stack([corner, end], 1).double(), rtol=0, atol=1e-4)
    if 'ShiftScaleRotate' not in steps:
        crops = torch.stack([view['crop'] for view in views])
        assert torch.equal(drawn['crop'][:, :2], crops[..., :2].amin(0))
        assert torch.equal(end.flip(1), (crops[..., :2] + crops[..., 2:]).amax(0))


def test_a_view_that_was_moved_off_its_tile_leaves_a_pixel():
    moved = torch.tensor([[[1., 0, 500], [0, 1, -500]]], dtype=torch.float64)
    drawn = dict(frame_to_tile=moved, frame_size=torch.tensor([[40, 40]]))
    found = UnionView(['a']).around([drawn], torch.tensor([[60, 50]]))
    assert found['crop'].tolist() == [[0, 49, 1, 1]]


def test_boxes_are_the_published_ones():
    golden = np.load(GOLDEN / 'concl_step_keys_unshuffled.npz')
    for step in range(3):
        crops = torch.from_numpy(
            golden[f'step{step}/crop_pixels_top_left_height_width_flip'])[..., :4]
        found = UnionView(['q', 'k']).around([dict(crop=crops[:, 0]), dict(crop=crops[:, 1])],
                                             torch.tensor([[224, 224]] * len(crops)))
        expected = golden[f'step{step}/union_pixels_top_left_height_width']
        assert np.array_equal(found['crop'], expected)


@pytest.mark.parametrize('steps', [[], ['ShiftScaleRotate']])
def test_its_pixels_are_pils_by_every_renderer(tiles, steps):
    some = np.stack(tiles[::6])
    for size in (64, (300, 224)):
        _, union, drawn = drawn_around(steps, [[224, 224]] * len(some), 1, size)
        expected = np.empty((len(some), *union.size, 3), np.uint8)
        for tile, (top, left, height, width), slot in zip(some, drawn['crop'].tolist(), expected):
            crop = Image.fromarray(tile[top:top + height, left:left + width])
            slot[:] = crop.resize(union.size[::-1], Image.Resampling.BICUBIC)
        for renderer in (render_pil, render_opencv):
            out = np.empty_like(expected)
            for tile, parameters, slot in zip(some, unbind(drawn), out):
                renderer(tile, union, parameters, slot)
            error = np.abs(out.astype(int) - expected)  # torch's weights for bytes are short
            assert error.max() <= (0 if renderer is render_pil else 3) and error.mean() < 0.1
        batch = TorchRenderer(union)(torch.from_numpy(some).permute(0, 3, 1, 2), drawn)
        error = np.abs(batch.permute(0, 2, 3, 1).numpy() - expected)
        # PIL resizes along rows first, and cuts what overshoots bytes between the two.
        assert np.percentile(error, 99.9) <= 2 and error.mean() < 0.2


@pytest.mark.parametrize('arguments, message', [
    (dict(of=[]), 'list of names'), (dict(of='query'), 'list of names'),
    (dict(of=['a'], size=0), 'size'), (dict(of=['a'], interpolation='nearest'), 'interpolation')])
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        UnionView(**arguments)


def test_it_is_not_drawn_by_itself():
    union = UnionView(['query', 'key'], 64)
    assert repr(union) == 'UnionView 64 x 64 of query, key, bicubic'
    with pytest.raises(ValueError, match='drawn around other views'):
        union.draw(torch.tensor([[9, 9]]), torch.Generator())
