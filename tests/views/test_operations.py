"""Each operation means what torchvision, PIL or its paper says."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as published

from openselfsup.views import (
    Draws,
    ElasticDistortion,
    GridDistortion,
    Scope,
    ViewRecipe,
    render_opencv,
    render_pil,
)
from openselfsup.views.steps.blur import gaussian_kernel
from openselfsup.views.steps.stain import ABSORPTION, concentrations, density_map, intensities

ADJUST = [('brightness', published.adjust_brightness, 1.3),
          ('contrast', published.adjust_contrast, 0.7),
          ('contrast', published.adjust_contrast, 1.4),
          ('saturation', published.adjust_saturation, 1.4),
          ('hue', published.adjust_hue, 0.08), ('hue', published.adjust_hue, -0.45)]


def render(renderer, tile, step, **drawn):
    """A view of the whole tile after one step with given parameters."""
    recipe = ViewRecipe(tile.shape[:2], dict(step=step))
    parameters = {'crop': np.array([0, 0, *tile.shape[:2]]), 'orientation': 0, 'step.apply': True}
    parameters |= {f'step.{key}': value for key, value in drawn.items()}
    out = np.empty_like(tile)
    renderer(tile, recipe, parameters, out)
    return out


def jitter(renderer, tile, order=(0, 1, 2, 3), **factors):
    factors = dict(brightness=1, contrast=1, saturation=1, hue=0) | factors
    return render(renderer, tile, dict(type='ColorJitter'), order=np.array(order), **factors)


def distance(a, b):
    return np.abs(a.astype(int) - b.astype(int))


@pytest.mark.parametrize('name, adjust, factor', ADJUST)
def test_jitter_is_torchvisions_on_pil_images(tiles, name, adjust, factor):
    for tile in tiles[::6]:
        expected = np.asarray(adjust(Image.fromarray(tile), factor))
        assert np.array_equal(jitter(render_pil, tile, **{name: factor}), expected)
        off = distance(jitter(render_opencv, tile, **{name: factor}), expected)
        if name == 'hue':
            assert off.mean() <= 1.5
        else:
            assert off.max() <= 1 and off.mean() < 0.6


def test_jitter_follows_the_order(tiles):
    factors = dict(brightness=1.4, contrast=1.4, saturation=0.6, hue=0.1)
    results = []
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
        image = Image.fromarray(tiles[-1])
        for which in order:
            name = list(factors)[which]
            image = getattr(published, f'adjust_{name}')(image, factors[name])
        assert np.array_equal(jitter(render_pil, tiles[-1], order, **factors), image)
        results.append(jitter(render_opencv, tiles[-1], order, **factors))
        assert distance(results[-1], np.asarray(image)).mean() < 1
    assert distance(results[0], results[1]).mean() > 2


def test_hue_comes_back_after_a_full_circle():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    turned = jitter(render_opencv, jitter(render_opencv, image, hue=0.5), hue=-0.5)
    assert distance(turned, image).mean() < 4
    # Hue in HSV keeps the largest and the smallest value of a pixel.
    turned = jitter(render_opencv, image, hue=0.3)
    assert distance(turned.max(-1), image.max(-1)).max() <= 1
    assert distance(turned.min(-1), image.min(-1)).max() <= 2


@pytest.mark.parametrize('renderer', [render_opencv, render_pil])
def test_grayscale_and_solarize(tiles, renderer):
    image = Image.fromarray(tiles[3])
    gray = np.asarray(published.to_grayscale(image, 3))
    assert distance(render(renderer, tiles[3], dict(type='Grayscale')), gray).max() <= 1
    for threshold in (128, 200):
        expected = np.asarray(published.solarize(image, threshold))
        step = dict(type='Solarize', threshold=threshold)
        assert np.array_equal(render(renderer, tiles[3], step), expected)


@pytest.mark.parametrize('sigma', [0.1, 0.4, 1., 2., 4.7])
def test_blur_is_pils(tiles, sigma):
    for tile in tiles[::8]:
        expected = np.asarray(Image.fromarray(tile).filter(ImageFilter.GaussianBlur(sigma)))
        blurred = render(render_opencv, tile, dict(type='GaussianBlur'), sigma=sigma)
        off, edge = distance(blurred, expected), int(np.ceil(3 * sigma))
        assert off.mean() < 0.8 and off[edge:-edge, edge:-edge].max() <= 3
        assert abs(blurred.mean() - tile.mean()) < 0.6  # it neither darkens nor brightens


@pytest.mark.parametrize('sigma', [0., 0.05, 0.5, 1.4, 1.5, 2.9, 11.3])
def test_the_kernel_has_the_variance_asked_for(sigma):
    kernel = gaussian_kernel(sigma)
    at = np.arange(len(kernel)) - len(kernel) // 2
    assert abs(kernel.sum() - 1) < 1e-5 and kernel.min() >= 0
    assert np.array_equal(kernel, kernel[::-1]) or np.allclose(kernel, kernel[::-1])
    assert abs((kernel * at ** 2).sum() - sigma ** 2) < 1e-4 * max(1, sigma ** 2)


def test_a_crop_is_blurred_by_the_sigma_of_the_view():
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    tile = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1)))
    recipe = ViewRecipe(224, dict(blur=dict(type='GaussianBlur')))
    for crop, orientation in (([20, 30, 160, 90], 0), ([20, 30, 90, 160], 5)):
        views = []
        for renderer in (render_opencv, render_pil):
            views.append(np.empty((224, 224, 3), np.uint8))
            renderer(tile, recipe, {'crop': np.array(crop), 'orientation': orientation,
                                           'blur.apply': True, 'blur.sigma': 2.}, views[-1])
        assert distance(*views).mean() < 0.8


# Stains

@pytest.mark.parametrize('stain', range(3))
def test_a_pure_stain_is_found(stain):
    amounts = np.zeros((1, 1, 3))
    amounts[..., stain] = 0.6
    pure = intensities(amounts)
    expected = 255 * 10 ** (-0.6 * ABSORPTION[stain])
    np.testing.assert_allclose(pure[0, 0], expected)
    np.testing.assert_allclose(concentrations(pure), amounts, atol=1e-9)


def test_absorption_is_ruifroks():
    np.testing.assert_allclose(ABSORPTION[0] / ABSORPTION[0, 0], [1, 0.70 / 0.65, 0.29 / 0.65])
    np.testing.assert_allclose((ABSORPTION ** 2).sum(1), 1)


@pytest.mark.parametrize('renderer', [render_opencv, render_pil])
def test_stains_are_scaled_and_shifted(tiles, renderer):
    tile, step = tiles[7], dict(type='HEDJitter')
    same = render(renderer, tile, step, scale=np.ones(3), shift=np.zeros(3))
    assert distance(same, np.maximum(tile, 1)).max() <= 1
    scale, shift = np.array([1.2, 0.8, 1.]), np.array([0.02, -0.01, 0.])
    changed = render(renderer, tile, step, scale=scale, shift=shift)
    inner = ((changed > 20) & (changed < 250)).all(-1)
    assert inner.mean() > 0.3
    expected = concentrations(tile) * scale + shift
    np.testing.assert_allclose(concentrations(changed)[inner], expected[inner], atol=0.02)
    white = np.full((4, 4, 3), 255, np.uint8)
    assert (render(renderer, white, step, scale=scale, shift=np.full(3, -0.1)) == 255).all()


def test_the_density_map_is_the_deconvolution():
    rng = np.random.default_rng(0)
    scale, shift, amounts = rng.uniform(0.8, 1.2, 3), rng.uniform(-0.1, 0.1, 3), rng.random(3)
    density = amounts @ ABSORPTION
    np.testing.assert_allclose(density_map(scale, shift) @ [*density, 1],
                               (amounts * scale + shift) @ ABSORPTION)


# Distortions

def field(step, size=(96, 128), seed=0):
    drawn = step.draw(1, size, Draws.at(seed, positions=np.arange(1)))
    x, y = step.positions(Scope({f's.{k}': v[0] for k, v in drawn.items()}, 's.'), size)
    return x - np.arange(size[1]), y - np.arange(size[0])[:, None]


@pytest.mark.parametrize('alpha, sigma', [(200., 4.), (80., 3.)])
def test_elastic_fields_have_their_strength_and_smoothness(alpha, sigma):
    step = ElasticDistortion(alpha=alpha, sigma=sigma)
    fields = np.array([field(step, seed=seed) for seed in range(30)])
    expected = alpha / np.sqrt(3) / (2 * np.sqrt(np.pi) * sigma)
    assert abs(fields.std() / expected - 1) < 0.08
    # Smoothed noise is correlated by exp(-d² / 4 sigma²); also at the border.
    for d in (2, 6):
        correlation = (fields[..., d:] * fields[..., :-d]).mean() / fields.var()
        assert abs(correlation - np.exp(-d * d / (4 * sigma * sigma))) < 0.08
    assert abs(fields[..., 0].std() / expected - 1) < 0.15


def test_elastic_fields_are_simards():
    # The definition: uniform noise at every pixel, smoothed.
    noise = np.random.default_rng(0).uniform(-1, 1, (300, 300))
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), 5.)) * 100
    fields = np.array([field(ElasticDistortion(alpha=100., sigma=5.), (300, 300), s)[0]
                       for s in range(3)])
    assert abs(fields.std() / smooth.std() - 1) < 0.15


def test_grid_distortion_keeps_the_borders_and_the_order():
    for seed in range(20):
        dx, dy = field(GridDistortion(steps=5, limit=1.), seed=seed)
        assert (dx == dx[0]).all() and (dy == dy[:, :1]).all()
        x = dx[0] + np.arange(128)
        assert (np.diff(x) >= 0).all() and x[0] >= -0.5 and x[-1] <= 127.5
    dx, dy = field(GridDistortion(limit=0.))
    assert np.abs(dx).max() < 1e-4 and np.abs(dy).max() < 1e-4


def test_distortions_move_pixels_and_no_colours(tiles):
    for name in ('ElasticDistortion', 'GridDistortion'):
        recipe = ViewRecipe(224, [dict(type=name, p=1.)])
        drawn = recipe.draw(torch.tensor([[224, 224]]), torch.Generator().manual_seed(0))
        out = np.empty((224, 224, 3), np.uint8)
        render_opencv(tiles[1], recipe, {k: v[0].numpy() for k, v in drawn.items()}, out)
        assert distance(out, tiles[1]).mean() > 2
        assert abs(out.mean() - tiles[1].mean()) < 6
