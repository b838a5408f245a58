"""Global and local crops of DINO, iBOT and DINOv2, as published and for tissue.

Configs call these functions; what they return is plain settings, views and steps under names:
global1, global2, local1, local2, ...
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

from ..errors import UserError, nearest

Blur = Literal['written', 'trained']

# Of global 1, global 2 and local crops. DINO and iBOT blur as they write; DINOv2 and DINOv3 pass
# 1 - p on, so that their published weights were trained with the other probabilities.
BLURRED: dict[str, tuple[float, float, float]] = dict(written=(1.0, 0.1, 0.5),
                                                      trained=(0.0, 0.9, 0.5))


def dino_views(size: int = 224, scale: tuple[float, float] = (0.4, 1.0), local_views: int = 8,
               local_size: int = 96, local_scale: tuple[float, float] = (0.05, 0.4),
               blur: Blur = 'written', solarize: float = 0.2) -> dict[str, dict]:
    """Return the published recipes (DINO, arXiv 2104.14294; DINOv2, arXiv 2304.07193).

    Args:
        size: side of the two global crops in pixels.
        scale: range of their share of the tile's area; 0.32 to 1 in DINOv2.
        local_views: how many local crops there are.
        local_size: their side, 98 for patches of 14 pixels.
        local_scale: range of their share of the tile's area; 0.05 to 0.32 in DINOv2.
        blur: probabilities with which the first global crop, the second and local ones are
            blurred: 'written' is 1, 0.1, 0.5, and 'trained' is 0, 0.9, 0.5, see above.
        solarize: probability with which the second global crop is solarised.

    Raises:
        UserError: a blur that is none of these.
    """
    views = {}
    for name, large, p in _crops(local_views, blur):
        views[name] = dict(
            type='ViewRecipe', size=size if large else local_size, interpolation='bicubic',
            steps=dict(
                crop=dict(type='RandomResizedCrop', scale=scale if large else local_scale),
                hflip=dict(type='HorizontalFlip', p=0.5),
                jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2,
                            hue=0.1, p=0.8),
                gray=dict(type='Grayscale', p=0.2),
                blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), p=p),
                solarize=dict(type='Solarize', p=solarize if name == 'global2' else 0.0)))
    return views


def tissue_views(size: int = 224, scale: tuple[float, float] = (0.32, 1.0), local_views: int = 8,
                 local_size: int = 96, local_scale: tuple[float, float] = (0.05, 0.32),
                 tile: int | None = None, stain: float = 0.05, stain_probability: float = 0.5,
                 blur: Blur = 'trained') -> dict[str, dict]:
    """Return recipes for tissue, which has no up and no down, and whose colours are stains.

    Both flips, quarter turns and a variation of stains; milder colours and no solarising. With
    ``tile`` magnification hardly changes (extended-context translation, Virchow2, arXiv
    2408.00738).

    Args:
        size: side of the two global crops in pixels.
        scale: range of their share of the tile's area; not used with ``tile``.
        local_views: how many local crops there are.
        local_size: their side, 98 for patches of 14 pixels.
        local_scale: range of their share of the tile's area; not used with ``tile``.
        tile: side of the tiles in pixels, 392 in Virchow2; crops then are :func:`unit_scale`
            parts of them.
        stain: σ of :func:`hed_jitter`.
        stain_probability: of its use.
        blur: see :func:`dino_views`.

    Raises:
        UserError: crops that do not fit into the tile, or a blur that is none of these.
    """
    views = {}
    for name, large, p in _crops(local_views, blur):
        side = size if large else local_size
        crop = (dict(type='RandomResizedCrop', scale=scale if large else local_scale)
                if tile is None else unit_scale(side, tile))
        views[name] = dict(
            type='ViewRecipe', size=side, interpolation='bicubic', steps=dict(
                crop=crop,
                hflip=dict(type='HorizontalFlip', p=0.5),
                vflip=dict(type='VerticalFlip', p=0.5),
                turn=dict(type='QuarterTurn', p=1.0),
                stain=dict(hed_jitter(stain), p=stain_probability),
                jitter=dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0.1,
                            hue=0.05, p=0.8),
                gray=dict(type='Grayscale', p=0.1),
                blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), p=p)))
    return views


def _crops(local_views: int, blur: Blur) -> Iterator[tuple[str, bool, float]]:
    """Yield the name of each crop, whether it is global, and how often it is blurred.

    Raises:
        UserError: there are no such probabilities.
    """
    if blur not in BLURRED:
        raise UserError(f"blur is '{blur}'", where='blur of the views',
                        expected='one of ' + ', '.join(BLURRED), nearest=nearest(blur, BLURRED))
    first, second, local = BLURRED[blur]
    yield 'global1', True, first
    yield 'global2', True, second
    for i in range(local_views):
        yield f'local{i + 1}', False, local


def hed_jitter(sigma: float = 0.05) -> dict[str, Any]:
    """Return the variation of stains of Tellez et al. (arXiv 1902.06543, sec. 3.1) in our units.

    A concentration c becomes a c + b, a from 1 - σ to 1 + σ and b from -σ to σ. Theirs are of
    natural logarithms; ours, of decimal ones, are 2.3 times smaller. Those of scikit-image's
    ``rgb2hed`` are 13.8 times the natural ones: its numbers are not to be copied.

    Args:
        sigma: σ, 0.05 is their "light", 0.2 their "strong".
    """
    return dict(type='HEDJitter', scale=sigma, shift=sigma / math.log(10))


def unit_scale(size: int, tile: int) -> dict[str, Any]:
    """Return a crop that keeps the magnification: 0.9 to 1.1 times its area, at any place.

    Args:
        size: side of the view in pixels.
        tile: side of the tiles; little room is left on one that is hardly larger.

    Raises:
        UserError: the crop does not fit into the tile.
    """
    low, high = (factor * size ** 2 / tile ** 2 for factor in (0.9, 1.1))
    if high > 1:
        raise UserError(f'views of {size} px at their own scale do not fit into tiles of {tile} px',
                        where='tile of the views',
                        expected=f'tiles of {math.ceil(1.05 * size)} px or more')
    return dict(type='RandomResizedCrop', scale=(low, high), ratio=(0.95, 1.05))
