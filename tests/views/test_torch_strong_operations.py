"""The steps of CA2CL's views, rendered as a batch, are those of PIL from the same draws."""

import numpy as np
import pytest
import torch
from test_render_torch import as_batch, by_pil, differences, draw

from openselfsup.views import Scope, TorchRenderer, ViewRecipe, unbind
from openselfsup.views.steps.blur import _median, motion_kernel
from openselfsup.views.steps.pixels import _hash

HSV = dict(type='HueSaturationValue', hue=10, saturation=20, value=10)
BLURS = dict(motion=dict(type='MotionBlur', p=1.), median=dict(type='MedianBlur', p=1.),
             gaussian=dict(type='GaussianBlur', sigma=(0.8, 1.1), p=1.))
NOISE = dict(type='GaussianNoise', variance=(5., 30.))
BENDS = dict(optical=dict(type='OpticalDistortion', limit=1., p=1.),
             grid=dict(type='GridDistortion', steps=5, limit=1., p=1.),
             elastic=dict(type='ElasticDistortion', alpha=3., sigma=4., p=1.))
WEAK = [dict(type='Transpose', p=0.5), dict(type='VerticalFlip'), dict(type='HorizontalFlip'),
        dict(type='Brightness', p=0.75), dict(type='Contrast', p=0.75), HSV,
        dict(type='ShiftScaleRotate', shift=0.1, scale=0.1, degrees=15, p=0.5)]
STRONG = [*WEAK[:5], dict(type='OneOf', p=0.7, steps=BLURS),
          dict(type='OneOf', p=0.4, steps=BENDS), *WEAK[5:], dict(type='Cutout', p=0.7)]
STEPS = [dict(type='Brightness'), dict(type='Contrast'), dict(type='Lighting'), HSV,
         dict(type='Cutout'), *BLURS.values(),
         *BENDS.values(), dict(type='MotionBlur', limit=3), dict(type='MedianBlur', limit=3),
         dict(type='ElasticDistortion', alpha=200., sigma=10.)]


@pytest.fixture(scope='module')
def some(tiles):
    return np.stack(tiles[::12])  # of both sources


@pytest.mark.parametrize('step', STEPS, ids=lambda step: step['type'])
def test_each_step_is_that_of_pil(some, step):
    error = differences(ViewRecipe(224, [dict(step, p=0.8)]), some)
    assert error.mean() <= 0.5 and np.percentile(error, 99) <= 4


def test_holes_have_their_exact_edges(some):
    assert differences(ViewRecipe(224, [dict(type='Cutout', p=1.)]), some).max() == 0


@pytest.mark.parametrize('size', [224, (90, 120)])
@pytest.mark.parametrize('steps', [WEAK, STRONG], ids=['weak', 'strong'])
def test_whole_recipes_are_those_of_pil(some, steps, size):
    error = differences(ViewRecipe(size, steps), some)
    assert error.mean() <= 1.5 and np.percentile(error, 99) <= 8


@pytest.mark.parametrize('step', [*STEPS, NOISE], ids=lambda step: step['type'])
def test_a_step_that_does_not_apply_changes_nothing(some, step):
    recipe = ViewRecipe(224, [dict(step, p=0.)])
    views = TorchRenderer(recipe)(as_batch(some[:2]), draw(recipe, some[:2]))
    assert torch.equal(views.byte(), as_batch(some[:2]))


def test_one_of_applies_the_chosen_step_even_of_a_nested_choice(some):
    inner = dict(type='OneOf', p=1., steps=dict(NO=dict(type='Cutout', size=0.), BURST=dict(
        type='Brightness', limit=1.)))
    recipe = ViewRecipe(224, dict(one=dict(type='OneOf', p=0.7, steps=dict(
        deep=inner, blur=BLURS['median']))))
    tiles = np.concatenate([some] * 4)
    parameters = draw(recipe, tiles)
    views = TorchRenderer(recipe)(as_batch(tiles), parameters).permute(0, 2, 3, 1).numpy()
    assert np.abs(views - by_pil(recipe, tiles, parameters)).max() <= 1
    unchanged = ~parameters['one.apply'] | ((parameters['one.choice'] == 0)
                                            & (parameters['one.deep.choice'] == 0))
    assert 0 < unchanged.sum() < len(tiles)
    assert np.array_equal((views == tiles).all((1, 2, 3)), unchanged.numpy())


def test_motion_kernels_are_those_of_the_cpu_renderer():
    recipe = ViewRecipe(8, [dict(type='MotionBlur', limit=5, p=0.7)])
    parameters = draw(recipe, np.zeros((40, 8, 8, 3), np.uint8))
    kernels = recipe.steps[0].prepare_torch(Scope(parameters, 'MotionBlur.'))
    for kernel, drawn in zip(kernels.view(-1, 5, 5).numpy(), unbind(parameters)):
        expected = (motion_kernel(int(drawn['MotionBlur.length']), float(drawn['MotionBlur.angle']))
                    if drawn['MotionBlur.apply'] else np.ones((1, 1)))
        assert np.allclose(kernel, np.pad(expected, (5 - len(expected)) // 2), atol=1e-6)


@pytest.mark.parametrize('count', [3, 9, 25])
def test_median(count):
    values = torch.randint(0, 256, (count, 500), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(count))
    assert torch.equal(_median(list(values)), values.median(0).values)


def noise_of(tiles: np.ndarray, seed: int = 0, **step) -> tuple[torch.Tensor, dict]:
    recipe = ViewRecipe(tiles.shape[1:3], dict(noise=dict(NOISE, p=1., **step)))
    parameters = draw(recipe, tiles, seed)
    return TorchRenderer(recipe)(as_batch(tiles), parameters) - as_batch(tiles), parameters


def test_noise_has_the_distribution_of_the_cpu_renderers():
    grey = np.full((6, 224, 224, 3), 128, np.uint8)
    noise, parameters = noise_of(grey)
    assert noise.std((1, 2, 3)) == pytest.approx(parameters['noise.deviation'], rel=0.02)
    assert noise.mean((1, 2, 3)).abs().max() < 0.1
    z = noise / parameters['noise.deviation'][:, None, None, None]
    assert (z ** 3).mean().abs() < 0.02 and (z ** 4).mean() == pytest.approx(3, abs=0.1)  # normal
    rows = z.flatten(1)
    neighbours = z[..., :-1].flatten(1), z[:, :, :-1].flatten(1), z[:, :-1].flatten(1)
    shifted = z[..., 1:].flatten(1), z[:, :, 1:].flatten(1), z[:, 1:].flatten(1)
    for a, b in [(rows[:-1], rows[1:]), *zip(neighbours, shifted)]:
        assert (a * b).mean(1).abs().max() < 0.02  # views, pixels and channels are independent


def test_noise_depends_on_its_seed_alone_not_on_the_batch():
    grey = np.full((6, 40, 40, 3), 128, np.uint8)
    noise, parameters = noise_of(grey)
    assert torch.equal(noise_of(grey)[0], noise)
    assert not torch.equal(noise_of(grey, seed=1)[0], noise)
    recipe = ViewRecipe(40, dict(noise=dict(NOISE, p=1.)))
    fourth = {key: value[3:4] for key, value in parameters.items()}
    assert torch.equal(TorchRenderer(recipe)(as_batch(grey[3:4]), fourth) - 128, noise[3:4])


def test_every_bit_of_a_seed_counts():
    grey = np.full((32, 40, 40, 3), 128, np.uint8)
    recipe = ViewRecipe(40, dict(noise=dict(NOISE, p=1., variance=(25., 25.))))
    parameters = draw(recipe, grey)
    parameters['noise.seed'] = torch.tensor([0, *(1 << bit for bit in range(31))])
    noise = TorchRenderer(recipe)(as_batch(grey), parameters) - 128
    together = torch.corrcoef(noise.flatten(1)) - torch.eye(32)
    assert together.abs().max() < 0.08  # 5 standard deviations


def test_hashes_are_even_and_seeds_one_apart_have_nothing_in_common():
    hashes = _hash(torch.arange(2 ** 16))
    assert len(hashes.unique()) == 2 ** 16 and 0 <= hashes.min() and hashes.max() < 2 ** 32
    bits = hashes[:, None] >> torch.arange(32) & 1
    assert (bits.float().mean(0) - 0.5).abs().max() < 0.01
    assert ((bits[1:] != bits[:-1]).float().mean(0) - 0.5).abs().max() < 0.02
