"""Views with PIL, each step as published: the reference for the fast renderers.

The frame is cut from the tile and resized first; the other steps follow in the order of the
recipe, at the resolution of the view. Slow, and plain on purpose.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..recipe import ViewRecipe
from ..steps import Scope
from .opencv import check_images

_TRANSPOSE = Image.Transpose.TRANSPOSE
_FILTERS = dict(bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)
_FLIPS = ((1, Image.Transpose.FLIP_LEFT_RIGHT), (2, Image.Transpose.FLIP_TOP_BOTTOM))


def render(tile: np.ndarray, recipe: ViewRecipe, parameters: Mapping[str, Any],
           out: np.ndarray) -> None:
    """Render one view of a tile into ``out``; see :func:`.opencv.render`."""
    check_images(tile, recipe, out)
    view = _warp(tile, parameters) if recipe.is_warped else _cut(tile, parameters)
    view = view.resize(recipe.size[::-1], _FILTERS[recipe.interpolation])
    for name, step in [*recipe.before_resize, *recipe.after_resize]:
        if parameters[f'{name}.apply']:
            view = step.render_pil(view, Scope(parameters, f'{name}.'))
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
