import numpy as np
import pytest
import torch
from torchvision import transforms as published

from openselfsup.views import ViewRecipe, unbind

MOCO = dict(
    crop=dict(type='RandomResizedCrop', scale=(0.2, 1.)),
    jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    gray=dict(type='Grayscale', p=0.2),
    blur=dict(type='GaussianBlur', sigma=(0.1, 2.), p=0.5),
    flip=dict(type='HorizontalFlip', p=0.5))
ALL = ['RandomResizedCrop', 'HorizontalFlip', 'VerticalFlip', 'QuarterTurn', 'Transpose',
       'ShiftScaleRotate', 'ColorJitter', 'Grayscale', 'GaussianBlur', 'Solarize', 'HEDJitter',
       'ElasticDistortion', 'GridDistortion']


def draw(recipe, sizes, seed=0):
    return recipe.draw(torch.tensor(sizes), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('steps, geometry, breaking', [
    ([], 'axis_aligned', {}),
    (['RandomResizedCrop', 'QuarterTurn', 'Transpose', 'VerticalFlip', 'HEDJitter'],
     'axis_aligned', {}),
    (['ShiftScaleRotate', 'HorizontalFlip'], 'affine', {}),
    (['ElasticDistortion', 'ShiftScaleRotate', 'GridDistortion'], 'none',
     {'steps.ElasticDistortion': 'ElasticDistortion', 'steps.GridDistortion': 'GridDistortion'})])
def test_a_recipe_knows_its_geometry(steps, geometry, breaking):
    recipe = ViewRecipe(64, [dict(type=step) for step in steps])
    assert recipe.geometry == geometry and recipe.breaking_steps == breaking


def test_all_steps_draw_for_a_batch_of_unequal_tiles():
    recipe = ViewRecipe((48, 64), [dict(type=name) for name in ALL])
    sizes = [[224, 224], [100, 300], [33, 32]]
    drawn = draw(recipe, sizes)
    assert all(value.shape[0] == 3 and value.device.type == 'cpu' for value in drawn.values())
    assert drawn['view_to_tile'].shape == (3, 2, 3)
    assert drawn['view_to_tile'].dtype == torch.float32
    one = unbind(drawn)[1]
    assert one.keys() == drawn.keys()
    assert np.array_equal(one['ColorJitter.order'], drawn['ColorJitter.order'][1])


def test_only_the_generator_decides():
    recipe = ViewRecipe(64, [dict(type=name) for name in ALL])
    state = torch.get_rng_state()
    first, again, other = (draw(recipe, [[60, 50]] * 4, seed) for seed in (7, 7, 8))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first['view_to_tile'], other['view_to_tile'])
    assert torch.equal(state, torch.get_rng_state())


def test_a_named_step_can_be_changed_or_left_out():
    recipe = ViewRecipe(64, {**MOCO, 'jitter': {**MOCO['jitter'], 'p': 0.}, 'blur': None})
    drawn = draw(recipe, [[64, 64]] * 50)
    assert not drawn['jitter.apply'].any()
    assert list(recipe.named_steps) == ['crop', 'jitter', 'gray', 'flip']


def test_steps_of_a_list_are_told_apart():
    recipe = ViewRecipe(64, [dict(type='GaussianBlur'), dict(type='Solarize'),
                             dict(type='GaussianBlur', p=1.)])
    assert list(recipe.named_steps) == ['GaussianBlur', 'Solarize', 'GaussianBlur2']
    drawn = draw(recipe, [[64, 64]])
    assert {'GaussianBlur.sigma', 'GaussianBlur2.sigma'} <= drawn.keys()


def test_the_probability_is_that_of_the_step():
    drawn = draw(ViewRecipe(64, MOCO), [[64, 64]] * 4000)
    for name in ('jitter', 'gray', 'blur'):
        assert abs(drawn[f'{name}.apply'].float().mean() - MOCO[name]['p']) < 0.04
    flipped = (drawn['orientation'] == 1).float().mean()
    assert abs(flipped - 0.5) < 0.04 and set(drawn['orientation'].tolist()) == {0, 1}


def test_a_recipe_reads_well():
    assert repr(ViewRecipe(64, dict(flip=MOCO['flip'], blur=MOCO['blur']))) == (
        'ViewRecipe 64 x 64, geometry axis_aligned\n'
        '  flip  HorizontalFlip(p=0.5)\n'
        '  blur  GaussianBlur(p=0.5, sigma=(0.1, 2.0))')


@pytest.mark.parametrize('steps, message', [
    ([dict(type='RandomResizeCrop')], 'RandomResizedCrop'),
    ([dict()], 'no step is called None'),
    ([dict(type='Grayscale', prob=0.2)], 'prob'),
    ([dict(type='Grayscale', p=1.2)], 'p must be in'),
    ([dict(type='RandomResizedCrop', scale=(0.5, 0.2))], 'scale'),
    ([dict(type='RandomResizedCrop', scale=(0.5, 1.2))], 'scale'),
    ([dict(type='ColorJitter', hue=0.6)], 'hue'),
    ([dict(type='ColorJitter', brightness=(-0.1, 1))], 'brightness'),
    ([dict(type='GaussianBlur', sigma=(2., 1.))], 'sigma'),
    ([dict(type='HEDJitter', scale=-1.)], 'HEDJitter'),
    ([dict(type='ShiftScaleRotate', scale=1.)], 'ShiftScaleRotate'),
    ([dict(type='ElasticDistortion', sigma=0.)], 'sigma'),
    ([dict(type='GridDistortion', limit=2.)], 'limit')])
def test_mistakes_are_named(steps, message):
    with pytest.raises(ValueError, match=message):
        ViewRecipe(64, steps)


@pytest.mark.parametrize('size', [0, (64,), (64, -1)])
def test_sizes_are_checked(size):
    with pytest.raises(ValueError, match='size'):
        ViewRecipe(size, [])


@pytest.mark.parametrize('tile, scale, ratio', [
    ((224, 224), (0.2, 1.), (3 / 4, 4 / 3)),
    ((60, 200), (0.08, 1.), (3 / 4, 4 / 3)),
    ((100, 110), (0.1, 0.3), (1.5, 3.)),
    ((50, 40), (0.5, 0.9), (0.5, 3.))])
def test_crops_are_distributed_as_torchvisions(tile, scale, ratio):
    count = 3000
    recipe = ViewRecipe(32, [dict(type='RandomResizedCrop', scale=scale, ratio=ratio)])
    ours = draw(recipe, [tile] * count)['crop'].double()
    torch.manual_seed(0)
    image = torch.empty(3, *tile)
    theirs = torch.tensor([published.RandomResizedCrop.get_params(image, scale, ratio)
                           for _ in range(count)]).double()
    assert (ours >= 0).all() and (ours[:, 2:] > 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor(tile)).all()
    for quantile in (0.1, 0.5, 0.9):
        a, b = ours.quantile(quantile, dim=0), theirs.quantile(quantile, dim=0)
        assert ((a - b).abs() <= 1 + 0.06 * max(tile)).all()
    error = 5 * ours.std(0) * (2 / count) ** 0.5 + 0.05
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= error).all()


@pytest.mark.parametrize('tile', [(100, 30), (30, 100), (64, 64)])
def test_where_no_crop_fits_the_largest_central_one_is_taken(tile):
    scale, ratio = (1., 1.), (0.8, 1.2)
    if tile == (64, 64):
        ratio = (2., 3.)
    recipe = ViewRecipe(32, [dict(type='RandomResizedCrop', scale=scale, ratio=ratio)])
    expected = published.RandomResizedCrop.get_params(torch.empty(3, *tile), scale, ratio)
    assert draw(recipe, [tile])['crop'][0].tolist() == list(expected)


def test_shifts_scales_and_rotations_stay_in_range():
    recipe = ViewRecipe(32, [dict(type='ShiftScaleRotate', shift=0.2, scale=0.3, degrees=40, p=1.)])
    drawn = draw(recipe, [[60, 120]] * 2000)
    linear = drawn['frame_to_tile'][:, :, :2]
    zoom = 1 / linear.det().sqrt()
    angle = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 0, 0]))
    tile_to_frame = torch.linalg.inv(linear)
    middle = torch.tensor([60., 30], dtype=torch.float64)
    moved = (tile_to_frame @ (middle - drawn['frame_to_tile'][:, :, 2])[..., None])[..., 0] - middle
    for value, limit in ((zoom - 1, 0.3), (angle, 40), (moved[:, 0], 24), (moved[:, 1], 12)):
        assert value.abs().max() <= limit + 1e-6
        assert value.max() > 0.9 * limit and value.min() < -0.9 * limit
    # A rotation of pixels keeps angles and lengths although the tile is not square.
    assert torch.allclose(linear.mT @ linear, torch.eye(2).double() / zoom[:, None, None] ** 2)


def test_jitter_takes_every_order_and_its_ranges():
    jitter = dict(type='ColorJitter', brightness=0.4, contrast=(0.5, 0.6), hue=0.1)
    recipe = ViewRecipe(32, [jitter])
    drawn = draw(recipe, [[32, 32]] * 2000)
    assert len({tuple(order) for order in drawn['ColorJitter.order'].tolist()}) == 24
    for name, low, high in (('brightness', 0.6, 1.4), ('contrast', 0.5, 0.6),
                            ('saturation', 1, 1), ('hue', -0.1, 0.1)):
        values = drawn[f'ColorJitter.{name}']
        margin = 0.05 * (high - low)
        assert low <= values.min() <= low + margin and high - margin <= values.max() <= high
