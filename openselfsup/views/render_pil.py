"""Views with PIL, each step as published: the reference for the fast renderers.

The frame is cut from the tile and resized first; the other steps follow in the order of the
recipe, at the resolution of the view. Slow, and plain on purpose.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from .distortion_steps import Distortion
from .photometric_steps import ColorJitter, GaussianBlur, Grayscale, HEDJitter, Solarize
from .recipe import OneOf, ViewRecipe
from .render_cpu import check_images
from .stains import concentrations, intensities
from .steps import Scope
from .strong_operations import PIL

_TRANSPOSE = Image.Transpose.TRANSPOSE
_FLIPS = ((1, Image.Transpose.FLIP_LEFT_RIGHT), (2, Image.Transpose.FLIP_TOP_BOTTOM))


def render(tile: np.ndarray, recipe: ViewRecipe, parameters: Mapping[str, Any],
           out: np.ndarray) -> None:
    """Render one view of a tile into ``out``; see :func:`.render_cpu.render`."""
    check_images(tile, recipe, out)
    view = _warp(tile, parameters) if recipe.is_warped else _cut(tile, parameters)
    view = view.resize(recipe.size[::-1], Image.Resampling.BILINEAR)
    for name, step in [*recipe.before_resize, *recipe.after_resize]:
        if parameters[f'{name}.apply']:
            view = OPERATIONS[type(step).__name__](view, step, Scope(parameters, f'{name}.'))
    np.copyto(out, np.asarray(view))


def _cut(tile: np.ndarray, parameters: Mapping[str, Any]) -> Image.Image:
    top, left, height, width = parameters['crop'].tolist()
    frame = Image.fromarray(tile).crop((left, top, left + width, top + height))
    orientation = int(parameters['orientation'])
    if orientation & 4:
        frame = frame.transpose(_TRANSPOSE)
    for bit, flip in _FLIPS:
        if orientation & bit:
            frame = frame.transpose(flip)
    return frame


def _warp(tile: np.ndarray, parameters: Mapping[str, Any]) -> Image.Image:
    height, width = parameters['frame_size'].tolist()
    matrix = np.array(parameters['frame_to_tile'])
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    beyond = np.maximum(-corners.min(1), corners.max(1) - tile.shape[1::-1])
    margin = max(0, int(np.ceil(beyond.max()))) + 1  # what the frame shows is mirrored there
    padded = np.pad(tile, ((margin, margin), (margin, margin), (0, 0)), mode='symmetric')
    matrix[:, 2] += margin
    return Image.fromarray(padded).transform((width, height), Image.Transform.AFFINE,
                                             matrix.ravel().tolist(),
                                             Image.Resampling.BILINEAR)


def _color_jitter(view: Image.Image, step: ColorJitter, drawn: Scope) -> Image.Image:
    enhancers = (('brightness', ImageEnhance.Brightness), ('contrast', ImageEnhance.Contrast),
                 ('saturation', ImageEnhance.Color))
    for which in drawn['order'].tolist():
        if which < 3:
            name, enhancer = enhancers[which]
            view = enhancer(view).enhance(float(drawn[name]))
        else:
            view = _hue(view, float(drawn['hue']))
    return view


def _hue(view: Image.Image, turn: float) -> Image.Image:
    if turn == 0:
        return view
    hue, saturation, value = view.convert('HSV').split()
    hue = hue.point([(h + int(turn * 255)) % 256 for h in range(256)])
    return Image.merge('HSV', (hue, saturation, value)).convert('RGB')


def _grayscale(view: Image.Image, step: Grayscale, drawn: Scope) -> Image.Image:
    return view.convert('L').convert('RGB')


def _gaussian_blur(view: Image.Image, step: GaussianBlur, drawn: Scope) -> Image.Image:
    return view.filter(ImageFilter.GaussianBlur(radius=float(drawn['sigma'])))


def _solarize(view: Image.Image, step: Solarize, drawn: Scope) -> Image.Image:
    return ImageOps.solarize(view, step.threshold)


def _hed_jitter(view: Image.Image, step: HEDJitter, drawn: Scope) -> Image.Image:
    amounts = concentrations(np.asarray(view))
    amounts = amounts * np.asarray(drawn['scale']) + np.asarray(drawn['shift'])
    return Image.fromarray(intensities(amounts).round().astype(np.uint8))


def _distortion(view: Image.Image, step: Distortion, drawn: Scope) -> Image.Image:
    image = np.asarray(view).astype(np.float64)
    x, y = step.positions(drawn, image.shape[:2])
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    top = _mirrored(image, y0, x0) * (1 - fx) + _mirrored(image, y0, x0 + 1) * fx
    bottom = _mirrored(image, y0 + 1, x0) * (1 - fx) + _mirrored(image, y0 + 1, x0 + 1) * fx
    return Image.fromarray((top * (1 - fy) + bottom * fy).round().astype(np.uint8))


def _mirrored(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return ``image[y, x]``, positions beyond the edges mirrored about the edges."""
    wrapped = []
    for position, extent in zip((y, x), image.shape):
        position = position % (2 * extent)
        wrapped.append(np.minimum(position, 2 * extent - 1 - position))
    return image[tuple(wrapped)]


def _one_of(view: Image.Image, step: OneOf, drawn: Scope) -> Image.Image:
    chosen, drawn = step.chosen(drawn)
    return OPERATIONS[type(chosen).__name__](view, chosen, drawn)


OPERATIONS: dict[str, Callable[[Image.Image, Any, Scope], Image.Image]] = {
    'ColorJitter': _color_jitter,
    'Grayscale': _grayscale,
    'GaussianBlur': _gaussian_blur,
    'Solarize': _solarize,
    'HEDJitter': _hed_jitter,
    'ElasticDistortion': _distortion,
    'GridDistortion': _distortion,
    'OpticalDistortion': _distortion,
    'OneOf': _one_of,
    **PIL,
}
