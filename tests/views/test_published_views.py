"""Published views stand once, with the settings that were published."""

import runpy
from pathlib import Path

import pytest

from openselfsup.views import ViewRecipe, strong_view, vicregl_views, weak_view

CONFIGS = Path(__file__).parents[2] / 'configs'
BOTH = """\
Transpose(p=0.5)
VerticalFlip(p=0.5)
HorizontalFlip(p=0.5)
Brightness(p=0.75, limit=0.2)
Contrast(p=0.75, limit=0.2)
"""
STRONG = BOTH + """\
OneOf(p=0.7, steps=dict(motion=MotionBlur(p=0.5, limit=5), median=MedianBlur(p=0.5, limit=5), \
gaussian=GaussianBlur(p=0.5, sigma=(0.8, 1.1)), noise=GaussianNoise(p=0.5, variance=(5.0, 30.0))))
OneOf(p=0.4, steps=dict(optical=OpticalDistortion(p=0.5, limit=1.0), \
grid=GridDistortion(p=0.5, steps=5, limit=1.0), \
elastic=ElasticDistortion(p=0.5, alpha=3.0, sigma=4.0)))
CLAHE(p=0.7, clip=4.0, grid=8)
HueSaturationValue(p=0.5, hue=10, saturation=20, value=10)
ShiftScaleRotate(p=0.85, shift=0.1, scale=0.1, degrees=15)
Cutout(p=0.7, size=0.375)
"""
WEAK = BOTH + """\
HueSaturationValue(p=0.5, hue=10, saturation=20, value=10)
ShiftScaleRotate(p=0.5, shift=0.1, scale=0.1, degrees=15)
"""


def described(settings: dict) -> str:
    """Return each step of a recipe with all its settings, defaults among them, on a line."""
    lines = []
    for step in ViewRecipe(settings['size'], settings['steps']).steps:
        if hasattr(step, 'named_steps'):
            inner = ', '.join(f'{name}={one!r}' for name, one in step.named_steps.items())
            lines.append(f'OneOf(p={step.p}, steps=dict({inner}))')
        else:
            lines.append(repr(step))
    return '\n'.join([*lines, ''])


@pytest.mark.parametrize('view, expected', [(strong_view, STRONG), (weak_view, WEAK)])
def test_the_settings_are_the_published_ones(view, expected):
    assert described(view(224)) == expected
    assert view((3, 4))['size'] == (3, 4)
    assert view(224) == view(224) and view(224)['steps'] is not view(224)['steps']


@pytest.mark.parametrize('name, size', [('_base_/datasets/nct_crc_strong_weak.py', 224),
                                        ('demo/ca2cl_r18.py', 96)])
def test_configs_have_the_two_views(name, size):
    recipe = runpy.run_path(str(CONFIGS / name))['dataset']['recipe']
    assert recipe == dict(strong=strong_view(size), weak=weak_view(size))
    assert list(recipe) == ['strong', 'weak']  # the first is the query


def test_vicregl_has_large_and_small_views():
    views = vicregl_views(224, (0.4, 1.0), small_views=3)
    assert list(views) == ['large1', 'large2', 'small1', 'small2', 'small3']
    assert [view['size'] for view in views.values()] == [224, 224, 96, 96, 96]
    for name, view in views.items():
        large, even = name.startswith('large'), name[-1] in '13'
        assert described(view) == f"""\
RandomResizedCrop(p=1.0, scale={(0.4, 1.0) if large else (0.08, 0.4)}, \
ratio=(0.75, 1.3333333333333333))
HorizontalFlip(p=0.5)
ColorJitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
Grayscale(p=0.2)
GaussianBlur(p={1.0 if even else 0.1}, sigma=(0.1, 2.0))
Solarize(p={0.0 if even else 0.2}, threshold=128)
"""
        assert view['interpolation'] == 'bicubic'
