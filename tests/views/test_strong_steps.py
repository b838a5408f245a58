"""The steps of CA2CL's views, and Lighting: renderers agree, ranges are as set, order is kept."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from openselfsup.views import STEPS, Draws, ViewRecipe, render_opencv, render_pil, unbind
from openselfsup.views.steps.blur import motion_kernel

TILES = sorted((Path(__file__).parents[2] / 'data/demo/kather2016').glob('*/*.png'))[::6]
STRONG = [
    dict(type='Brightness', limit=0.2), dict(type='Contrast', limit=0.2),
    dict(type='HueSaturationValue', hue=10, saturation=20, value=10),
    dict(type='MotionBlur', limit=5), dict(type='MedianBlur', limit=5),
    dict(type='GaussianBlur', sigma=(0.8, 1.1)), dict(type='GaussianNoise', variance=(5, 30)),
    dict(type='Lighting', deviation=0.5), dict(type='CLAHE', clip=4),
    dict(type='Cutout', size=0.375),
    dict(type='OpticalDistortion', limit=1.0), dict(type='GridDistortion', steps=5, limit=1.0),
    dict(type='ElasticDistortion', alpha=3.0, sigma=4.0),
    dict(type='OneOf', steps=[dict(type='MotionBlur'), dict(type='GaussianNoise')])]
GREY = np.full((40, 40, 3), 128, np.uint8)


def tiles():
    return [cv2.imread(str(path))[..., ::-1].copy() for path in TILES]


def draw(recipe, count, size=224, seed=0):
    return unbind(recipe.draw(torch.full((count, 2), size), torch.Generator().manual_seed(seed)))


def render(recipe, tile, parameters, renderer=render_opencv):
    out = np.empty((*recipe.size, 3), np.uint8)
    renderer(tile, recipe, parameters, out)
    return out


def view_of(tile, seed=0, **step):
    """Return one view that certainly underwent a step, and the step's parameters."""
    recipe = ViewRecipe(tile.shape[:2], {'step': dict(p=1.0, **step)})
    parameters = draw(recipe, 1, len(tile), seed)[0]
    return render(recipe, tile, parameters).astype(int), parameters


@pytest.mark.parametrize('step', STRONG, ids=lambda step: step['type'])
def test_renderers_agree(step):
    recipe = ViewRecipe(224, [dict(step, p=1.0)])
    images = tiles()
    fast, plain = (np.stack([render(recipe, tile, parameters, renderer) for tile, parameters
                             in zip(images, draw(recipe, len(images)))]).astype(int)
                   for renderer in (render_opencv, render_pil))
    difference = np.abs(fast - plain)
    assert difference.mean() <= 1.5 and np.percentile(difference, 99) <= 6
    assert np.abs(fast - np.stack(images)).max() > 8  # it did something


def test_brightness_adds_and_contrast_multiplies():
    view, drawn = view_of(GREY, type='Brightness', limit=0.2)
    assert (view == 128 + round(255 * float(drawn['step.amount']))).all()
    view, drawn = view_of(GREY, type='Contrast', limit=0.2)
    assert np.abs(view - 128 * (1 + drawn['step.amount'])).max() <= 0.5


@pytest.mark.parametrize('name, key, low, high', [
    ('Brightness', 'amount', -0.2, 0.2), ('Contrast', 'amount', -0.2, 0.2),
    ('CLAHE', 'clip', 1, 4), ('GaussianNoise', 'deviation', 5 ** 0.5, 30 ** 0.5),
    ('OpticalDistortion', 'k', -1, 1), ('MotionBlur', 'length', 3, 5),
    ('MedianBlur', 'side', 3, 5)])
def test_published_ranges_are_the_defaults(name, key, low, high):
    draws = Draws.at(0, positions=np.arange(2000))
    drawn = STEPS[name]().draw(2000, (224, 224), draws)[key].double()
    assert low <= drawn.min() < low + 0.02 * (high - low) + 1e-6
    assert high >= drawn.max() > high - 0.02 * (high - low) - 1e-6


def test_lighting_is_alexnets():
    drawn = STEPS['Lighting']().draw(4000, (9, 9), Draws.at(0, positions=np.arange(4000)))
    # Deviation 0.1 along each component: the covariance of the colour is 0.01 Σ λ² e eᵀ.
    covariance = np.cov((drawn['colour'] / 255).numpy().T)
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140],
                        [-0.5836, -0.6948, 0.4203]])
    expected = 0.01 * vectors @ np.diag([0.2175, 0.0188, 0.0045]) ** 2 @ vectors.T
    assert np.abs(covariance / expected - 1).max() < 0.1
    view, drawn = view_of(GREY, type='Lighting')
    assert (view == (128 + drawn['step.colour']).round()).all()


def test_hue_saturation_and_value_shift_as_set():
    draws = Draws.at(0, positions=np.arange(2000))
    drawn = STEPS['HueSaturationValue']().draw(2000, (9, 9), draws)['shift']
    assert (drawn.abs().amax(0) <= torch.tensor([10., 20., 10.])).all()
    assert (drawn.abs().amax(0) > torch.tensor([9.9, 19.8, 9.9])).all()
    view, drawn = view_of(GREY, type='HueSaturationValue', hue=0, saturation=0, value=10)
    assert (view == 128 + round(float(drawn['step.shift'][2]))).all()


def test_noise_has_its_variance_and_is_repeatable():
    grey = np.full((224, 224, 3), 128, np.uint8)
    view, drawn = view_of(grey, type='GaussianNoise', variance=(25, 25))
    noise = view - 128
    assert noise.std() == pytest.approx(5, rel=0.02) and abs(noise.mean()) < 0.05
    assert np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1] < 0.02
    assert (view_of(grey, type='GaussianNoise', variance=(25, 25))[0] == view).all()
    assert (view_of(grey, 1, type='GaussianNoise', variance=(25, 25))[0] != view).any()


def test_motion_kernels_are_lines_of_sum_one():
    assert motion_kernel(5, 0.0)[2] == pytest.approx(0.2)
    assert np.diag(motion_kernel(3, np.pi / 4)).sum() > 0.7
    for angle in np.linspace(0, np.pi, 9):
        for length in (3, 5):
            kernel = motion_kernel(length, angle)
            assert kernel.sum() == pytest.approx(1) and (kernel >= 0).all()


def test_a_median_removes_one_bright_pixel():
    spotted = GREY.copy()
    spotted[20, 20] = 255
    assert (view_of(spotted, type='MedianBlur')[0] == 128).all()


def test_cutout_is_one_black_rectangle_of_its_size():
    areas = []
    for seed in range(30):
        view, _ = view_of(np.full((224, 224, 3), 200, np.uint8), seed, type='Cutout', size=0.375)
        rows, columns = (np.flatnonzero((view == 0).all(-1).any(axis)) for axis in (1, 0))
        assert set(np.unique(view)) == {0, 200}
        assert len(rows) * len(columns) == (view == 0).all(-1).sum()  # a full rectangle
        areas.append(len(rows) * len(columns))
        assert len(rows) <= 84 and len(columns) <= 84
    assert max(areas) == 84 * 84 and min(areas) < 84 * 84  # at the edge a part of it is lost


def test_a_lens_keeps_the_middle_and_mirrors_beyond_the_edge():
    tile = np.full((101, 101, 3), 100, np.uint8)
    tile[45:56, 45:56] = 200
    recipe = ViewRecipe(101, {'step': dict(type='OpticalDistortion', p=1.0)})
    parameters = draw(recipe, 1, 101)[0]
    for k, smaller in ((1.0, True), (-1.0, False)):
        parameters['step.k'] = np.float32(k)
        view = render(recipe, tile, parameters)
        assert (view[50, 50] == 200).all() and view.min() >= 100  # no black border
        assert ((view > 150).sum() <= (tile > 150).sum()) == smaller or k == -1.0


def test_one_of_applies_one_in_proportion():
    recipe = ViewRecipe(224, dict(group=dict(type='OneOf', p=0.7, steps=dict(
        motion=dict(type='MotionBlur', p=0.2), cut=dict(type='Cutout', p=0.6)))))
    drawn = recipe.draw(torch.full((4000, 2), 224), torch.Generator().manual_seed(0))
    assert drawn['group.apply'].float().mean() == pytest.approx(0.7, abs=0.03)
    assert drawn['group.choice'].float().mean() == pytest.approx(0.75, abs=0.03)
    tile = np.full((224, 224, 3), 200, np.uint8)
    for parameters in unbind(drawn)[:20]:
        cut = bool(parameters['group.apply']) and parameters['group.choice'] == 1
        assert (render(recipe, tile, parameters) == 0).any() == cut


def test_geometry_is_that_of_the_strongest_step():
    plain = dict(type='OneOf', steps=[dict(type='MedianBlur')])
    bent = dict(type='OneOf', steps=dict(
        blur=dict(type='MedianBlur'), inner=dict(type='OneOf', steps=[
            dict(type='Cutout'), dict(type='GridDistortion')]),
        optical=dict(type='OpticalDistortion')))
    assert ViewRecipe(9, [plain]).geometry == 'axis_aligned'
    recipe = ViewRecipe(9, dict(blur=plain, bend=bent))
    assert recipe.geometry == 'none' and recipe.breaking_steps == {
        'steps.bend.steps.inner.steps.GridDistortion': 'GridDistortion',
        'steps.bend.steps.optical': 'OpticalDistortion'}


def test_steps_keep_their_order_from_the_first_that_needs_the_finished_view():
    steps = dict(bright=dict(type='Brightness'), cut=dict(type='Cutout'), hsv=dict(
        type='HueSaturationValue', p=1.0, hue=0, saturation=0, value=255))
    recipe = ViewRecipe(40, steps)
    assert [name for name, _ in recipe.before_resize] == ['bright']
    assert [name for name, _ in recipe.after_resize] == ['cut', 'hsv']
    parameters = draw(recipe, 1, 40)[0]
    parameters.update({'bright.apply': False, 'cut.apply': True, 'hsv.apply': True,
                       'hsv.shift': np.array([0, 0, 50], np.float32)})
    for renderer in (render_opencv, render_pil):
        assert render(recipe, GREY, parameters, renderer).min() == 50  # the hole was shifted, too


@pytest.mark.parametrize('step, words', [
    (dict(type='MotionBlur', limit=4), 'limit must be 3 or 5'),
    (dict(type='CLAHE', clip=0.5), 'at least 1'), (dict(type='Cutout', size=2), r'size must be in'),
    (dict(type='GaussianNoise', variance=(3, 1)), 'variance'),
    (dict(type='HueSaturationValue', hue=100), 'hue must be in'),
    (dict(type='OneOf', steps=[]), 'a step with p > 0'),
    (dict(type='OneOf', steps=[dict(type='VerticalFlip')]), 'change pixels, not VerticalFlip'),
    (dict(type='OneOf', steps=[dict(type='Blur')]), 'no step is called')])
def test_impossible_settings(step, words):
    with pytest.raises(ValueError, match=words):
        ViewRecipe(40, [step])
