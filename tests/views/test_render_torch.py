"""Views of a whole batch by torch are those of PIL, from the same draws."""

import numpy as np
import pytest
import torch
from PIL import Image

from openselfsup.views import Scope, TorchRenderer, ViewRecipe, missing_steps, render_pil, unbind
from openselfsup.views.steps.blur import gaussian_kernel

CROP = dict(type='RandomResizedCrop', scale=(0.2, 1.0))
JITTER = dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
BLUR = dict(type='GaussianBlur', sigma=(0.1, 2.0))
FLIPS = [dict(type='HorizontalFlip'), dict(type='VerticalFlip')]
TURNS = [dict(type='QuarterTurn'), dict(type='Transpose')]
MOCO = [CROP, dict(JITTER, p=0.8), dict(type='Grayscale'), BLUR, FLIPS[0]]
AFFINE = dict(type='ShiftScaleRotate', p=0.8)


@pytest.fixture(scope='module')
def some(tiles):
    return np.stack(tiles[::5])  # 9 or more of both sources


def as_batch(tiles: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(tiles).permute(0, 3, 1, 2)


def draw(recipe, tiles, seed=0):
    sizes = torch.tensor([tile.shape[:2] for tile in tiles])
    return recipe.draw(sizes, torch.Generator().manual_seed(seed))


def by_pil(recipe, tiles, parameters) -> np.ndarray:
    out = np.zeros((len(tiles), *recipe.size, 3), np.uint8)
    for tile, drawn, slot in zip(tiles, unbind(parameters), out):
        render_pil(tile, recipe, drawn, slot)
    return out


def differences(recipe, tiles, seed=0) -> np.ndarray:
    """Return |ours - PIL's| of one view of each tile, in 0..255."""
    parameters = draw(recipe, tiles, seed)
    views = TorchRenderer(recipe)(as_batch(tiles), parameters)
    assert views.dtype == torch.float32 and views.shape == (len(tiles), 3, *recipe.size)
    assert views.min() >= 0 and views.max() <= 255 and torch.equal(views, views.round())
    ours = views.permute(0, 2, 3, 1).numpy()
    return np.abs(ours - by_pil(recipe, tiles, parameters).astype(np.float32))


@pytest.mark.parametrize('size', [224, 96])
@pytest.mark.parametrize('steps', [MOCO, [CROP, AFFINE, JITTER, BLUR, *TURNS]])
def test_views_are_those_of_pil(some, steps, size):
    error = differences(ViewRecipe(size, steps), some)
    assert error.mean() <= 1.0 and np.percentile(error, 99) <= 4


@pytest.mark.parametrize('size', [224, 96, (300, 260)])
def test_bicubic_views_are_those_of_pil(some, size):
    error = differences(ViewRecipe(size, [CROP, AFFINE, *FLIPS, *TURNS], 'bicubic'), some)
    assert error.mean() <= 1.0 and np.percentile(error, 99) <= 4
    noise = np.random.default_rng(0).integers(0, 256, (4, 448, 448, 3), np.uint8)
    error = differences(ViewRecipe(size, [CROP, *FLIPS], 'bicubic'), noise)
    assert error.mean() <= 0.5 and np.percentile(error, 99) <= 4


def test_shrinking_is_antialiased(some):
    large = np.stack([np.asarray(Image.fromarray(tile).resize((448, 448))) for tile in some[:4]])
    noise = np.random.default_rng(0).integers(0, 256, (2, 448, 448, 3), np.uint8)
    for tiles in (large, noise):
        error = differences(ViewRecipe(224, MOCO), tiles)
        assert error.mean() <= 1.5 and np.percentile(error, 99) <= 8


@pytest.mark.parametrize('step', [
    dict(JITTER), dict(type='Grayscale', p=0.5), dict(type='Solarize', p=0.5),
    dict(type='HEDJitter', scale=0.2, shift=0.1, p=0.8)], ids=lambda step: step['type'])
def test_colours_follow_pils_arithmetic(some, step):
    error = differences(ViewRecipe(224, [step]), some[:5])
    assert error.mean() < 0.05 and (error > 1).mean() < 1e-3


def test_a_step_that_does_not_apply_changes_nothing(some):
    steps = [dict(JITTER, p=0.), dict(BLUR, p=0.), dict(type='HEDJitter', p=0.),
             dict(type='Solarize', p=0.), dict(type='Grayscale', p=0.)]
    recipe = ViewRecipe(224, steps)
    views = TorchRenderer(recipe)(as_batch(some[:2]), draw(recipe, some[:2]))
    assert torch.equal(views.byte(), as_batch(some[:2]))


@pytest.mark.parametrize('shape, size', [((40, 40), (40, 40)), ((48, 36), (30, 50)),
                                         ((36, 48), (50, 30))])
def test_orientations_of_any_tile_and_view(shape, size):
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (40, *shape, 3), np.uint8)
    recipe = ViewRecipe(size, [CROP, *FLIPS, *TURNS])
    assert len(draw(recipe, tiles)['orientation'].unique()) == 8
    assert differences(recipe, tiles).max() <= 1


@pytest.mark.parametrize('shape', [(48, 48), (40, 60)])
def test_affine_maps_of_any_tile(shape):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 10, 10, 3), np.uint8)
    tiles = np.stack([np.asarray(Image.fromarray(t).resize(shape[::-1])) for t in small])
    strong = dict(type='ShiftScaleRotate', shift=0.3, scale=0.3, degrees=90, p=1.)
    error = differences(ViewRecipe(24, [CROP, strong, *TURNS]), tiles)
    assert error.mean() < 1 and error.max() <= 4


def test_blur_kernels_are_those_of_the_cpu_renderer():
    recipe = ViewRecipe(8, [dict(BLUR, p=0.5, sigma=(0., 5.))])
    parameters = draw(recipe, np.zeros((30, 8, 8, 3), np.uint8))
    kernels = recipe.steps[0].prepare_torch(Scope(parameters, 'GaussianBlur.')).numpy()
    for kernel, sigma, apply in zip(kernels, parameters['GaussianBlur.sigma'],
                                    parameters['GaussianBlur.apply']):
        expected = gaussian_kernel(float(sigma)) if apply else np.ones(1)
        rest = (len(kernel) - len(expected)) // 2
        assert np.allclose(kernel, np.pad(expected, rest), atol=1e-6)


def test_autocast_changes_nothing(some):
    recipe = ViewRecipe(64, MOCO)
    parameters = draw(recipe, some[:4])
    render = TorchRenderer(recipe)
    plain = render(as_batch(some[:4]), parameters)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(render(as_batch(some[:4]), parameters), plain)


def test_what_it_cannot_render_is_refused(some):
    clahe = dict(type='CLAHE')
    steps = dict(crop=CROP, even=clahe, blur=dict(type='OneOf', steps=dict(gauss=BLUR, too=clahe)))
    assert missing_steps(ViewRecipe(224, steps)) == ['even', 'blur.too']
    with pytest.raises(ValueError, match='even, blur.too cannot be rendered by torch'):
        TorchRenderer(ViewRecipe(224, steps))
    recipe = ViewRecipe(224, MOCO)
    assert missing_steps(recipe) == []
    with pytest.raises(ValueError, match='tiles are uint8'):
        TorchRenderer(recipe)(as_batch(some).float(), draw(recipe, some))
