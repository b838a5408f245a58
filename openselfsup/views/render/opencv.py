"""Views with OpenCV, one tile at a time: the default renderer.

Crop-exact: a crop is usually smaller than the view, so colour and blur are applied to its
own pixels, with sigma scaled accordingly, and one resize straight into the batch's buffer
comes last. A crop larger than the view is resized (with antialiasing) first. OpenCV works
outside Python's lock, so threads render in parallel; importing this module therefore turns
off OpenCV's own threads, which a view is far too small for.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from ..recipe import ViewRecipe
from ..steps import Scope
from ..steps.pixels import resize

cv2.setNumThreads(0)


def render(tile: np.ndarray, recipe: ViewRecipe, parameters: Mapping[str, Any],
           out: np.ndarray) -> None:
    """Render one view of a tile into ``out``.

    Args:
        tile: RGB image, uint8 (H, W, 3); it is not changed.
        recipe: the recipe from which the parameters were drawn.
        parameters: what it drew for this view (arrays or tensors without batch dimension).
        out: where the view goes, uint8 (*recipe.size, 3), contiguous.

    Raises:
        ValueError: ``tile`` or ``out`` is none of the above.
    """
    check_images(tile, recipe, out)
    height, width = recipe.size
    image = _warp(tile, parameters) if recipe.is_warped else _cut(tile, parameters)
    if image.shape[0] * image.shape[1] > height * width:
        image = resize(image, recipe.size, interpolation=recipe.interpolation)
    image = _apply(image, recipe, recipe.before_resize, parameters)
    if recipe.after_resize:
        image = resize(image, recipe.size, interpolation=recipe.interpolation)
        image = _apply(image, recipe, recipe.after_resize, parameters)
    resize(image, recipe.size, out, recipe.interpolation)


def check_images(tile: np.ndarray, recipe: ViewRecipe, out: np.ndarray) -> None:
    """Raise ValueError unless ``tile`` and ``out`` are what :func:`render` takes."""
    if tile.dtype != np.uint8 or tile.ndim != 3 or tile.shape[2] != 3:
        raise ValueError(f'a tile is uint8 (H, W, 3), not {tile.dtype} {tile.shape}')
    if (out.dtype != np.uint8 or out.shape != (*recipe.size, 3)
            or not out.flags.c_contiguous or not out.flags.writeable):
        raise ValueError(f'out must be a writeable, contiguous uint8 array of shape '
                         f'{(*recipe.size, 3)}, not {out.dtype} {out.shape}')


def _apply(image: np.ndarray, recipe: ViewRecipe, steps: list, parameters: Mapping[str, Any]
           ) -> np.ndarray:
    for name, step in steps:
        if parameters[f'{name}.apply']:
            if image.ndim == 2 and not step.takes_grey:
                image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
            drawn = Scope(parameters, f'{name}.', recipe.interpolation)
            image = step.render_opencv(image, drawn, recipe.size)
    return image


# Geometry

def _cut(tile: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Return the crop of the tile in its orientation; it may share the tile's memory."""
    top, left, height, width = parameters['crop'].tolist()
    return orient(tile[top:top + height, left:left + width], int(parameters['orientation']))


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Flip and transpose an image, see :func:`~openselfsup.views.recipe.orientation_of`."""
    if orientation & 4:
        image = cv2.transpose(image)
    if orientation & 3:
        image = cv2.flip(image, {1: 1, 2: 0, 3: -1}[orientation & 3])
    return image


def _warp(tile: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Return the frame at the tile's resolution, mirrored beyond the tile's edges."""
    height, width = parameters['frame_size'].tolist()
    matrix = np.array(parameters['frame_to_tile'])
    # From pixel edges at integers to pixel centres at integers.
    matrix[:, 2] += 0.5 * matrix[:, :2].sum(1) - 0.5
    return cv2.warpAffine(tile, matrix, (width, height), borderMode=cv2.BORDER_REFLECT,
                          flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
