import threading

import numpy as np
import pytest
import torch
from test_rendered_geometry import ramp, sampled_at
from torchvision import tv_tensors
from torchvision.transforms import v2

from openselfsup.views import TorchvisionPipeline, ViewRecipe, render_opencv, unbind

SIZE = (48, 64)
RESIZE = dict(type='Resize', size=SIZE)
FLIPS = [dict(type='RandomHorizontalFlip'), dict(type='RandomVerticalFlip')]


def views(pipeline, tile, count=6):
    seeds = pipeline.draw(torch.zeros(count, 2), torch.Generator().manual_seed(0))['seed']
    for seed in seeds:
        out = np.empty((*pipeline.size, 3), np.uint8)
        yield out, pipeline.render(tile, {'seed': seed}, out)


@pytest.mark.parametrize('transforms, geometry', [
    ([dict(type='RandomResizedCrop', size=SIZE)], 'axis_aligned'),
    ([FLIPS[0], dict(type='RandomResizedCrop', size=SIZE), FLIPS[1]], 'axis_aligned'),
    ([*FLIPS, RESIZE, *FLIPS], 'axis_aligned'),
    ([dict(type='Pad', padding=9), dict(type='RandomCrop', size=SIZE), *FLIPS], 'axis_aligned'),
    ([dict(type='RandomRotation', degrees=30, interpolation='bilinear'), RESIZE], 'affine'),
    ([dict(type='RandomAffine', degrees=20, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10,
           interpolation='bilinear'), FLIPS[0], dict(type='RandomResizedCrop', size=SIZE)],
     'affine')])
def test_pixels_lie_where_the_solved_map_says(transforms, geometry):
    tile = ramp(90, 70)
    tile[..., 2] = 255  # what a transform fills in is black
    for view, to_tile in views(TorchvisionPipeline(SIZE, transforms, geometry), tile):
        assert to_tile.dtype == np.float32 and to_tile.shape == (2, 3)
        at = sampled_at(SIZE, torch.from_numpy(to_tile), tile)
        inside = ((at > 3) & (at < np.array([70, 90]) - 3)).all(-1) & (view[..., 2] == 255)
        inside[:3] = inside[-3:] = inside[:, :3] = inside[:, -3:] = False
        assert inside.sum() > 500
        assert np.abs(view[..., :2] / 2.5 - at)[inside].max() < 0.7


def test_the_map_of_a_flip_is_a_recipes():
    tile = ramp(64, 64)
    recipe = ViewRecipe(64, [dict(type='HorizontalFlip', p=1.)])
    drawn = recipe.draw(torch.tensor([[64, 64]]), torch.Generator())
    expected = np.empty_like(tile)
    render_opencv(tile, recipe, unbind(drawn)[0], expected)
    pipeline = TorchvisionPipeline(64, [dict(type='RandomHorizontalFlip', p=1.)])
    for view, to_tile in views(pipeline, tile, 1):
        assert np.array_equal(view, expected)
        np.testing.assert_allclose(to_tile, drawn['view_to_tile'][0], atol=1e-6)


@pytest.mark.parametrize('breaking', [dict(type='RandomPerspective', p=1.),
                                      dict(type='ElasticTransform')])
def test_what_no_affine_map_explains_is_refused(breaking):
    tile = ramp(90, 70)
    with pytest.raises(ValueError, match="no affine map .* geometry='none'"):
        list(views(TorchvisionPipeline(SIZE, [breaking, RESIZE]), tile))
    pipeline = TorchvisionPipeline(SIZE, [breaking, RESIZE], 'none')
    assert [to_tile for _, to_tile in views(pipeline, tile)] == [None] * 6
    assert pipeline.breaking_steps == {'transforms': 'TorchvisionPipeline'}


def test_a_rotation_is_refused_where_none_was_declared():
    pipeline = TorchvisionPipeline(SIZE, [dict(type='RandomRotation', degrees=30), RESIZE],
                                   'axis_aligned')
    with pytest.raises(ValueError, match="geometry='affine'"):
        list(views(pipeline, ramp(90, 70)))


class ImageOnly(v2.Transform):
    """Crops the image and forgets everything else."""

    def transform(self, inpt, params):
        return inpt[..., :40] if isinstance(inpt, tv_tensors.Image) else inpt


ADVICE = "no affine map leads .*; for such transforms set geometry='none'"


def test_transforms_that_lose_the_points_are_refused():
    for transform, words in (
            (ImageOnly(), 'ImageOnly the image has 90 x 40 px, and 16 of 16 points lie on 90 x 70'),
            (dict(type='RandomRotation', degrees=40, expand=True),  # as torchvision rounds
             r'RandomRotation the image has \d+ x \d+ px, and 16 of 16 points lie on \d+ x \d+')):
        with pytest.raises(ValueError, match=ADVICE) as caught:
            list(views(TorchvisionPipeline(SIZE, [transform, RESIZE]), ramp(90, 70)))
        caught.match(words)
    hidden = v2.RandomApply([v2.Compose([v2.Lambda(lambda image: image.flip(-1))])])
    with pytest.raises(ValueError, match='Lambda'):
        TorchvisionPipeline(SIZE, [hidden, RESIZE])


@pytest.mark.parametrize('transform, words', [
    (dict(type=name), f'{name} cannot move points .*BoundingBoxes are not supported')
    for name in ('RandAugment', 'AutoAugment', 'TrivialAugmentWide', 'AugMix')] + [
    (dict(type='RandomCrop', size=99, pad_if_needed=True, padding_mode='reflect'),
     'RandomCrop cannot move points .*reflect'),
    (dict(type='ToPureTensor'), 'ToPureTensor cannot move points .*canvas_size')])
def test_what_takes_no_points_is_told_with_what_to_set(transform, words):
    with pytest.raises(ValueError, match=ADVICE) as caught:
        list(views(TorchvisionPipeline(SIZE, [transform, RESIZE]), ramp(90, 70)))
    caught.match(words)
    assert len(list(views(TorchvisionPipeline(SIZE, [transform, RESIZE], 'none'),
                          ramp(90, 70)))) == 6


def test_what_takes_no_image_is_not_told_as_points():
    too_large = dict(type='RandomCrop', size=99)
    with pytest.raises(ValueError, match='^Required crop size .*larger than'):
        list(views(TorchvisionPipeline(SIZE, [too_large, RESIZE]), ramp(90, 70)))


def test_a_view_of_another_size_or_type_is_refused():
    for transforms in ([dict(type='Resize', size=(40, 64))],
                       [RESIZE, dict(type='ToDtype', dtype=torch.float32, scale=True)]):
        with pytest.raises(ValueError, match='not uint8 of shape'):
            list(views(TorchvisionPipeline(SIZE, transforms), ramp(90, 70)))


@pytest.mark.parametrize('transforms, message', [
    ([dict(type='RandomCropp')], 'RandomCropp'), ([dict(size=3)], 'None'),
    ([dict(type='functional')], 'functional'), ([dict(type='Resize', sise=3)], 'sise')])
def test_mistakes_are_named(transforms, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionPipeline(SIZE, transforms)
    with pytest.raises(ValueError, match='diagonal'):
        TorchvisionPipeline(SIZE, [RESIZE], 'diagonal')


RANDOM = [dict(type='RandomResizedCrop', size=SIZE), dict(type='GaussianNoise', sigma=0.1),
          dict(type='RandomChoice', transforms=[dict(type='RandomHorizontalFlip'),
                                                dict(type='RandomVerticalFlip')]),
          dict(type='RandomApply', transforms=[dict(type='ColorJitter', brightness=0.4)]),
          dict(type='RandomErasing', value='random', p=1.)]


@pytest.mark.filterwarnings('ignore:RandomErasing')
def test_the_seed_alone_decides_in_any_thread(tiles):
    pipeline = TorchvisionPipeline(SIZE, RANDOM)
    tile, seeds = tiles[0], range(12)

    def render(seed):
        out = np.empty((*SIZE, 3), np.uint8)
        return out, pipeline.render(tile, {'seed': seed}, out)

    torch.manual_seed(0)
    state = torch.get_rng_state()
    alone = [render(seed) for seed in seeds]
    assert torch.equal(state, torch.get_rng_state())
    assert len({view.tobytes() for view, _ in alone}) == 12
    together = {}
    threads = [threading.Thread(target=lambda part: together.update(
        {seed: render(seed) for seed in part}), args=(seeds[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        torch.rand(100)  # this thread draws meanwhile, and from its own generator
        thread.join()
    torch.set_rng_state(state)
    for seed in seeds:
        assert all(np.array_equal(a, b) for a, b in zip(alone[seed], together[seed]))


def test_the_seed_decides_on_distributions_of_torch_too(tiles):
    """AugMix mixes by a beta and a Dirichlet distribution."""
    pipeline = TorchvisionPipeline(SIZE, [RESIZE, dict(type='AugMix')], 'none')
    state = torch.get_rng_state()
    first, again = ([view.copy() for view, _ in views(pipeline, tiles[0])] for _ in range(2))
    assert np.array_equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
