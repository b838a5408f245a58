"""Global and local crops of DINO, iBOT and DINOv2, and those for tissue."""

import math

import pytest
import torch

from openselfsup.errors import UserError
from openselfsup.views import (
    Draws,
    ViewRecipe,
    determinant,
    dino_views,
    hed_jitter,
    tissue_views,
    unit_scale,
)


def test_a_misspelt_blur_is_named():
    for make in dino_views, tissue_views:
        with pytest.raises(UserError, match="blur is 'writen'.*did you mean 'written'"):
            make(blur='writen')


def built(views):
    return {name: ViewRecipe(**{key: value for key, value in view.items() if key != 'type'})
            for name, view in views.items()}


@pytest.mark.parametrize('blur, expected', [('written', (1.0, 0.1, 0.5)),
                                            ('trained', (0.0, 0.9, 0.5))])
def test_crops_have_names_sizes_and_their_blur(blur, expected):
    for make in dino_views, tissue_views:
        views = make(size=224, local_views=3, local_size=98, blur=blur)
        assert list(views) == ['global1', 'global2', 'local1', 'local2', 'local3']
        assert [view['size'] for view in views.values()] == [224, 224, 98, 98, 98]
        blurred = [view['steps']['blur']['p'] for view in views.values()]
        assert blurred == [*expected[:2], *3 * expected[2:]]
        assert {recipe.geometry for recipe in built(views).values()} == {'axis_aligned'}


def test_published_crops_are_solarised_and_flipped_as_published():
    views = built(dino_views(scale=(0.32, 1.), local_scale=(0.05, 0.32)))
    assert [view.named_steps['solarize'].p for view in views.values()] == [0, 0.2, *8 * [0]]
    assert [view.named_steps['crop'].scale for view in views.values()] == [
        *2 * [(0.32, 1.)], *8 * [(0.05, 0.32)]]
    for view in views.values():
        assert [*view.named_steps] == ['crop', 'hflip', 'jitter', 'gray', 'blur', 'solarize']
        jitter = view.named_steps['jitter']
        assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.p) == (
            0.4, 0.4, 0.2, 0.1, 0.8)
        assert view.interpolation == 'bicubic'


def test_stains_vary_in_decimal_densities_by_what_is_given_in_natural_ones():
    jitter = hed_jitter(0.2)
    assert jitter['scale'] == 0.2 and jitter['shift'] * math.log(10) == pytest.approx(0.2)


@pytest.mark.parametrize('name, size', [('global1', 224), ('local2', 98)])
def test_crops_of_extended_context_keep_the_magnification(name, size):
    recipe = built(tissue_views(size=224, local_views=2, local_size=98, tile=392))[name]
    draws = Draws.at(0, positions=torch.arange(200).numpy())
    maps = recipe.draw(torch.tensor([[392, 392]] * 200), draws)['view_to_tile']
    areas = determinant(maps.double()).abs() * 392 ** 2 / size ** 2  # of a view in its own pixels
    assert 0.88 < areas.min() < 0.93 and 1.07 < areas.max() < 1.12
    centres = maps[:, :, :2].sum(2) / 2 + maps[:, :, 2]
    room = (392 - 1.03 * size) / 392 / 2
    assert (centres - 0.5).abs().max() > 0.8 * room  # anywhere on the tile


def test_a_tile_without_room_is_refused():
    with pytest.raises(UserError, match='224 px .* do not fit into tiles of 224'):
        unit_scale(224, 224)
