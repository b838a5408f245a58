from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from test_recipe import ALL, MOCO

from openselfsup.views import ViewRecipe, render_opencv, render_pil, unbind

CROP = MOCO['crop']
TURNS = dict(turn=dict(type='QuarterTurn'), transpose=dict(type='Transpose'))


def draw(recipe, tiles, seed=0):
    sizes = torch.tensor([tile.shape[:2] for tile in tiles])
    return unbind(recipe.draw(sizes, torch.Generator().manual_seed(seed)))


def render_all(renderer, recipe, tiles, seed=0):
    out = np.empty((len(tiles), *recipe.size, 3), np.uint8)
    for tile, parameters, slot in zip(tiles, draw(recipe, tiles, seed), out):
        renderer(tile, recipe, parameters, slot)
    return out


def difference(recipe, tiles):
    """Mean and 99th percentile of |Δ| between the two renderers, of 255."""
    fast, reference = (render_all(renderer, recipe, tiles).astype(int)
                       for renderer in (render_opencv, render_pil))
    delta = np.abs(fast - reference)
    return delta.mean(), np.percentile(delta, 99)


def four_of(tiles):
    """Tiles of 448 x 448 pixels, each of four tiles."""
    return [np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)])
            for a, b, c, d in zip(tiles[::4], tiles[1::4], tiles[2::4], tiles[3::4])]


@pytest.mark.parametrize('size, steps', [
    (224, MOCO), (224, MOCO | TURNS), (96, MOCO), (64, MOCO), ((96, 128), MOCO | TURNS),
    (96, MOCO | dict(crop=CROP | dict(scale=(0.05, 0.14))))])
def test_both_renderers_agree_on_moco_v2(tiles, size, steps):
    mean, percentile = difference(ViewRecipe(size, steps), tiles)
    assert mean <= 1.5 and percentile <= 6


@pytest.mark.parametrize('size', [224, 96, (300, 260)])
def test_both_renderers_agree_on_bicubic_crops(tiles, size):
    mean, percentile = difference(ViewRecipe(size, MOCO, 'bicubic'), tiles[::2])
    assert mean <= 1.5 and percentile <= 6
    assert difference(ViewRecipe(size, [CROP], 'bicubic'), tiles[::4])[0] < 0.1  # another filter
    reference = render_all(render_pil, ViewRecipe(size, [CROP], 'bicubic'), tiles[::4])
    other = render_all(render_opencv, ViewRecipe(size, [CROP], 'bilinear'), tiles[::4])
    assert np.abs(other.astype(int) - reference).mean() > 0.2  # is seen


def test_crops_that_are_brightened_are_enlarged_as_the_recipe_says(tiles):
    small = [tile[:150, :150] for tile in tiles[::6]]
    for type_, more in (('ColorJitter', {}), ('OneOf', dict(p=1., steps=[
            dict(type='ColorJitter', brightness=(1.3, 1.3))]))):
        step = dict(type=type_, **(more or dict(brightness=(1.3, 1.3))))
        found = {how: [render_all(renderer, ViewRecipe(224, [step], how), small).astype(int)
                       for renderer in (render_opencv, render_pil)]
                 for how in ('bicubic', 'bilinear')}
        for fast, reference in found.values():
            assert np.abs(fast - reference).mean() < 0.2
        assert np.abs(found['bicubic'][0] - found['bilinear'][1]).mean() > 0.2  # is seen


@pytest.mark.parametrize('size', [224, 96])
def test_both_renderers_agree_when_tiles_shrink(tiles, size):
    mean, percentile = difference(ViewRecipe(size, MOCO), four_of(tiles))
    assert mean <= 1.5 and percentile <= 6


@pytest.mark.parametrize('step', [
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    dict(type='ColorJitter', hue=0.5), dict(type='Grayscale'), dict(type='HEDJitter'),
    dict(type='GaussianBlur', sigma=(0.1, 0.4)), dict(type='GaussianBlur', sigma=(2., 5.)),
    dict(type='ShiftScaleRotate'), dict(type='ElasticDistortion'), dict(type='GridDistortion'),
    dict(type='Solarize')], ids=lambda step: step['type'])
def test_both_renderers_agree_on_each_step(tiles, step):
    whole = ViewRecipe(224, [step | dict(p=1.)])
    mean, percentile = difference(whole, tiles)
    limits = (1.5, 8) if step.get('hue') == 0.5 else (0.7, 5)
    assert mean <= limits[0] and percentile <= limits[1]
    mean, _ = difference(ViewRecipe(224, [CROP, step | dict(p=1.)]), tiles[::3])
    assert mean <= 1.5


def test_brightening_does_not_suffer_from_the_later_resize(tiles):
    sharp = tiles[-30:]
    recipe = ViewRecipe(224, [CROP, dict(type='ColorJitter', brightness=(1., 1.4))])
    mean, percentile = difference(recipe, sharp)
    assert mean <= 0.4 and percentile <= 4


@pytest.mark.parametrize('size', [224, (300, 60)])
def test_whatever_follows_a_grey_view(tiles, size):
    gray = dict(type='Grayscale', p=1.)
    for name in ('RandomResizedCrop', 'GaussianBlur', 'ColorJitter', 'Grayscale', 'Solarize',
                 'HEDJitter', 'GridDistortion'):
        recipe = ViewRecipe(size, [CROP, gray, dict(type=name, p=1.)])
        views = render_all(render_opencv, recipe, tiles[-2:])
        assert views.std() > 5
        if name != 'HEDJitter':
            assert (views[..., :1] == views).all()
        reference = render_all(render_pil, recipe, tiles[-2:])
        assert np.abs(views.astype(int) - reference).mean() < 1.5


def test_without_steps_a_view_is_its_tile(tiles):
    for renderer in (render_opencv, render_pil):
        assert np.array_equal(render_all(renderer, ViewRecipe(224, []), tiles[:2]), tiles[:2])


@pytest.mark.parametrize('renderer', [render_opencv, render_pil])
def test_tiles_are_not_changed_and_neighbours_not_touched(tiles, renderer):
    together = ViewRecipe(56, [dict(type=name, p=1.) for name in ALL])
    for recipe in (together, *(ViewRecipe(224, [dict(type=name, p=1.)]) for name in ALL)):
        tile = tiles[0].copy()
        tile.flags.writeable = False
        buffer = np.full((3, *recipe.size, 3), 77, np.uint8)
        renderer(tile, recipe, draw(recipe, [tile])[0], buffer[1])
        assert np.array_equal(tile, tiles[0])
        assert (buffer[0] == 77).all() and (buffer[2] == 77).all() and (buffer[1] != 77).any()


def test_parts_of_larger_arrays_are_tiles_too(tiles):
    recipe = ViewRecipe(96, MOCO)
    part = tiles[0][10:150, 20:180]
    (a,), (b,) = (render_all(render_opencv, recipe, [tile]) for tile in (part, part.copy()))
    assert np.array_equal(a, b)


def test_tensors_serve_as_parameters(tiles):
    recipe = ViewRecipe(64, [dict(type=name, p=1.) for name in ALL])
    drawn = recipe.draw(torch.tensor([[224, 224]]), torch.Generator().manual_seed(3))
    for renderer in (render_opencv, render_pil):
        a, b = np.empty((2, 64, 64, 3), np.uint8)
        renderer(tiles[0], recipe, {key: value[0] for key, value in drawn.items()}, a)
        renderer(tiles[0], recipe, unbind(drawn)[0], b)
        assert np.array_equal(a, b)


def test_threads_do_not_disturb_each_other(tiles):
    recipe = ViewRecipe(96, MOCO | TURNS)
    expected = render_all(render_opencv, recipe, tiles)
    out = np.empty_like(expected)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(render_opencv, tiles, [recipe] * len(tiles), draw(recipe, tiles), out))
    assert np.array_equal(out, expected)


@pytest.mark.parametrize('renderer', [render_opencv, render_pil])
def test_wrong_arrays_are_refused(tiles, renderer):
    recipe = ViewRecipe(64, [])
    parameters = draw(recipe, tiles[:1])[0]
    good = np.empty((64, 64, 3), np.uint8)
    for tile in (tiles[0][..., 0], tiles[0] / 255, np.dstack([tiles[0], tiles[0][..., :1]])):
        with pytest.raises(ValueError, match='tile'):
            renderer(tile, recipe, parameters, good)
    for out in (np.empty((32, 64, 3), np.uint8), np.empty((64, 64, 3), np.float32),
                np.empty((3, 64, 64), np.uint8).transpose(1, 2, 0)):
        with pytest.raises(ValueError, match='out'):
            renderer(tiles[0], recipe, parameters, out)
