"""The pixels of a view lie where its map says."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from strategies import given

from openselfsup.views import ViewRecipe, render_opencv, render_pil, unbind
from openselfsup.views.geometry import transform

RENDERERS = pytest.mark.parametrize('renderer', [render_opencv, render_pil],
                                    ids=['render_opencv', 'render_pil'])
PLACING = ['RandomResizedCrop', 'RandomCrop', 'CenterCrop', 'HorizontalFlip', 'VerticalFlip',
           'QuarterTurn', 'Transpose']
BY_HAND = {'HorizontalFlip': lambda image: image[:, ::-1],
           'VerticalFlip': lambda image: image[::-1],
           'Transpose': lambda image: image.swapaxes(0, 1)}


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height, width):
    """A tile whose first two channels are 2.5 times the x and y of the pixel's middle."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([2.5 * x, 2.5 * y, 0 * x], -1).round().astype(np.uint8)


def view_of(renderer, tile, recipe, seed=0):
    drawn = recipe.draw(torch.tensor([tile.shape[:2]]), torch.Generator().manual_seed(seed))
    out = np.empty((*recipe.size, 3), np.uint8)
    renderer(tile, recipe, unbind(drawn)[0], out)
    return out, drawn['view_to_tile'][0]


def sampled_at(size, to_tile, tile):
    """Where the middles of a view's pixels lie, in pixels of the tile, (H, W, 2)."""
    y, x = np.mgrid[:size[0], :size[1]] + 0.5
    middles = torch.from_numpy(np.stack([x / size[1], y / size[0]], -1))
    return (transform(to_tile.double(), middles) * torch.tensor(tile.shape[1::-1])).numpy()


@RENDERERS
@given(steps=st.lists(st.sampled_from(PLACING), max_size=6), height=st.integers(8, 50),
       width=st.integers(8, 50), seed=st.integers(0, 1000))
def test_crops_flips_and_turns_in_any_order_are_exact(renderer, steps, height, width, seed):
    tile, steps = noise(height, width), [dict(type=step) for step in steps]
    drawn = ViewRecipe(8, steps).draw(torch.tensor([[height, width]]),
                                      torch.Generator().manual_seed(seed))
    *_, rows, columns = drawn['crop'][0].tolist()
    frame = (columns, rows) if drawn['orientation'][0] & 4 else (rows, columns)
    # A view of the size of its frame is not resized: pixel by pixel one of the tile's.
    view, to_tile = view_of(renderer, tile, ViewRecipe(frame, steps), seed)
    at = sampled_at(frame, to_tile, tile)
    assert np.abs(at - np.floor(at) - 0.5).max() < 1e-3
    x, y = np.floor(at).astype(int).transpose(2, 0, 1)
    assert np.array_equal(view, tile[y, x])


@RENDERERS
@given(steps=st.lists(st.sampled_from(list(BY_HAND)), max_size=5))
def test_steps_happen_in_their_order(renderer, steps):
    tile = expected = noise(12, 17)
    for step in steps:
        expected = BY_HAND[step](expected)
    recipe = ViewRecipe(expected.shape[:2], [dict(type=step, p=1.) for step in steps])
    assert np.array_equal(view_of(renderer, tile, recipe)[0], expected)


@pytest.mark.parametrize('share, side', [(0.875, 7), (1., 8), (0.01, 1)])
def test_squares_are_cut_where_they_should_be(share, side):
    sizes = torch.tensor([[8, 12]] * 200)
    middle = ViewRecipe(4, [dict(type='CenterCrop', share=share)])
    box = middle.draw(sizes[:1], torch.Generator())['crop'][0].tolist()
    assert box == [(8 - side) // 2, (12 - side) // 2, side, side]
    anywhere = ViewRecipe(4, [dict(type='RandomCrop', share=share)])
    top, left, height, width = anywhere.draw(sizes, torch.Generator())['crop'].unbind(1)
    assert set(height.tolist()) == set(width.tolist()) == {side}
    assert (set(top.tolist()), set(left.tolist())) == ({*range(9 - side)}, {*range(13 - side)})


def test_a_padded_crop_reaches_beyond_the_edges_and_keeps_its_size():
    recipe = ViewRecipe(32, [dict(type='RandomCrop', share=1., padding=4 / 32)])
    drawn = recipe.draw(torch.tensor([[32, 32]] * 400), torch.Generator().manual_seed(0))
    assert recipe.geometry == 'affine'
    assert set(drawn['frame_to_tile'][:, :, 2].flatten().tolist()) == {*range(-4, 5)}
    assert (drawn['frame_size'] == 32).all()


@pytest.mark.parametrize('step, words', [
    (dict(type='CenterCrop', share=0), 'share must be above 0'),
    (dict(type='RandomCrop', share=1.5), 'share must be above 0 and at most 1'),
    (dict(type='RandomCrop', padding=-1), 'padding must be in')])
def test_impossible_squares_are_refused(step, words):
    with pytest.raises(ValueError, match=words):
        ViewRecipe(4, [step])


@RENDERERS
def test_quarter_turns_are_those_of_numpy(renderer):
    tile, seen = noise(16, 16), set()
    turns = [np.rot90(tile, k).tobytes() for k in range(4)]
    for seed in range(20):
        view, _ = view_of(renderer, tile, ViewRecipe(16, [dict(type='QuarterTurn')]), seed)
        seen.add(turns.index(view.tobytes()))
    assert seen == {0, 1, 2, 3}


@RENDERERS
@given(steps=st.lists(st.sampled_from([*PLACING, 'ShiftScaleRotate']), max_size=5),
       size=st.tuples(st.integers(40, 120), st.integers(40, 120)), seed=st.integers(0, 1000))
def test_positions_survive_the_resize_and_any_affine_step(renderer, steps, size, seed):
    tile = ramp(90, 70)
    some = {'RandomResizedCrop': dict(scale=(0.3, 1.))}
    recipe = ViewRecipe(size, [dict(type=step, **some.get(step, {})) for step in steps])
    view, to_tile = view_of(renderer, tile, recipe, seed)
    at = sampled_at(size, to_tile, tile)
    # Away from the edges of tile and crop, where interpolation has no neighbours.
    inside = ((at > 4) & (at < np.array(tile.shape[1::-1]) - 4)).all(-1)
    inside[:4] = inside[-4:] = inside[:, :4] = inside[:, -4:] = False
    off = (view[..., :2] / 2.5 - at)[inside]
    assert np.abs(off).max(initial=0) < 0.8  # bytes are steps of 0.4 pixels, rounded thrice
    assert len(off) < 100 or np.abs(off.mean(0)).max() < 0.3


@RENDERERS
def test_beyond_the_edges_the_tile_is_mirrored(renderer):
    tile = noise(20, 20)
    recipe = ViewRecipe(20, [dict(type='ShiftScaleRotate')])
    shifted = torch.tensor([[1., 0, -7], [0, 1, 0]], dtype=torch.float64)
    parameters = {'frame_to_tile': shifted, 'frame_size': torch.tensor([20, 20])}
    out = np.empty((20, 20, 3), np.uint8)
    renderer(tile, recipe, parameters, out)
    expected = np.concatenate([tile[:, 6::-1], tile[:, :13]], axis=1)
    assert np.abs(out.astype(int) - expected).max() <= 1
