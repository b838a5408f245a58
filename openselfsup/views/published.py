"""Published views whose settings are used in more than one place.

CA2CL (cluster-aware adversarial contrastive learning, JBHI 2025) pairs a strong view with a weak
one, and fine-tunes on strong ones. VICRegL (arXiv 2210.01571) has large views and small ones.
Configs call these functions; what they return is plain settings, each step under a name, so that
a config can change one field of one view.
"""

from typing import Any

from ..values import Side


def _first_steps() -> dict[str, dict]:
    """Return the steps with which both views begin."""
    return dict(
        transpose=dict(type='Transpose', p=0.5),
        vflip=dict(type='VerticalFlip', p=0.5),
        hflip=dict(type='HorizontalFlip', p=0.5),
        brightness=dict(type='Brightness', limit=0.2, p=0.75),
        contrast=dict(type='Contrast', limit=0.2, p=0.75))


def strong_view(size: Side) -> dict[str, Any]:
    """Return the recipe of CA2CL's strong view.

    The whole tile is turned and mirrored, changed in colour, blurred or made noisy, distorted,
    moved, and a square is cut out.

    Args:
        size: side of the view in pixels, or (height, width).
    """
    return dict(type='ViewRecipe', size=size, steps=dict(
        **_first_steps(),
        blur=dict(type='OneOf', p=0.7, steps=dict(
            motion=dict(type='MotionBlur', limit=5),
            median=dict(type='MedianBlur', limit=5),
            gaussian=dict(type='GaussianBlur', sigma=(0.8, 1.1)),  # kernels 3 and 5
            noise=dict(type='GaussianNoise', variance=(5.0, 30.0)))),
        distortion=dict(type='OneOf', p=0.4, steps=dict(
            optical=dict(type='OpticalDistortion', limit=1.0),
            grid=dict(type='GridDistortion', steps=5, limit=1.0),
            elastic=dict(type='ElasticDistortion', alpha=3.0, sigma=4.0))),  # our sigma
        clahe=dict(type='CLAHE', clip=4.0, p=0.7),
        hsv=dict(type='HueSaturationValue', hue=10, saturation=20, value=10, p=0.5),
        affine=dict(type='ShiftScaleRotate', shift=0.1, scale=0.1, degrees=15, p=0.85),
        cutout=dict(type='Cutout', size=0.375, p=0.7)))  # 84 of 224 pixels


def weak_view(size: Side) -> dict[str, Any]:
    """Return the recipe of CA2CL's weak view: turned, mirrored, milder in colour and moved.

    Args:
        size: side of the view in pixels, or (height, width).
    """
    return dict(type='ViewRecipe', size=size, steps=dict(
        **_first_steps(),
        hsv=dict(type='HueSaturationValue', hue=10, saturation=20, value=10, p=0.5),
        affine=dict(type='ShiftScaleRotate', shift=0.1, scale=0.1, degrees=15, p=0.5)))


def vicregl_views(size: Side, scale: tuple[float, float] = (0.08, 1.0), small_views: int = 0,
                  small_size: Side = 96, small_scale: tuple[float, float] = (0.08, 0.4)
                  ) -> dict[str, dict]:
    """Return the recipes of VICRegL's views: large1, large2, small1, small2, ...

    The views of one size are by turns always blurred, and hardly blurred but sometimes inverted.

    Args:
        size: side of the two large views in pixels, or (height, width).
        scale: range of their share of the tile's area; (0.4, 1.0) beside small views.
        small_views: how many small views there are.
        small_size: side of the small views.
        small_scale: range of their share of the tile's area.
    """
    large = {f'large{i + 1}': _vicregl_view(size, scale, even=i % 2 == 0) for i in range(2)}
    return large | {f'small{i + 1}': _vicregl_view(small_size, small_scale, even=i % 2 == 0)
                    for i in range(small_views)}


def _vicregl_view(size: Side, scale: tuple[float, float], even: bool) -> dict[str, Any]:
    return dict(type='ViewRecipe', size=size, interpolation='bicubic', steps=dict(
        crop=dict(type='RandomResizedCrop', scale=scale),
        flip=dict(type='HorizontalFlip', p=0.5),
        jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1,
                    p=0.8),
        gray=dict(type='Grayscale', p=0.2),
        blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), p=1.0 if even else 0.1),
        solarize=dict(type='Solarize', p=0.0 if even else 0.2)))
