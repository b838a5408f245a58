"""Views with OpenCV, one tile at a time: the default renderer.

Crop-exact: a crop is usually smaller than the view, so colour and blur are applied to its
own pixels, with sigma scaled accordingly, and one resize straight into the batch's buffer
comes last. A crop larger than the view is resized (with antialiasing) first. OpenCV works
outside Python's lock, so threads render in parallel; importing this module therefore turns
off OpenCV's own threads, which a view is far too small for.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import torch

from .distortion_steps import Distortion
from .photometric_steps import ColorJitter, GaussianBlur, Grayscale, HEDJitter, Solarize
from .recipe import OneOf, ViewRecipe
from .stains import density_map
from .steps import Scope
from .strong_operations import OPENCV

cv2.setNumThreads(0)

Size = tuple[int, int]

_TRUNCATE = -0.5  # PIL cuts to whole numbers where OpenCV rounds
# A view that is brightened more than this is enlarged before: interpolation between pixels
# that were cut to 255 is not what cutting after the interpolation gives.
_HEADROOM = 1.1
_TAKE_GREY = ('GaussianBlur', 'Solarize')  # operations that also take (H, W)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2
# Terms of matrices (3, 4) that take (R, G, B, 1) to colours
_SAME, _GREY, _ADDED = np.eye(3, 4), np.array([[*_LUMA, 0]] * 3), np.array([[0, 0, 0, 1.]] * 3)


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
        image = _resize(image, recipe.size)
    image = _apply(image, recipe.before_resize, parameters, recipe.size)
    if recipe.after_resize:
        image = _apply(_resize(image, recipe.size), recipe.after_resize, parameters, recipe.size)
    _resize(image, recipe.size, out)


def check_images(tile: np.ndarray, recipe: ViewRecipe, out: np.ndarray) -> None:
    """Raise ValueError unless ``tile`` and ``out`` are what :func:`render` takes."""
    if tile.dtype != np.uint8 or tile.ndim != 3 or tile.shape[2] != 3:
        raise ValueError(f'a tile is uint8 (H, W, 3), not {tile.dtype} {tile.shape}')
    if (out.dtype != np.uint8 or out.shape != (*recipe.size, 3)
            or not out.flags.c_contiguous or not out.flags.writeable):
        raise ValueError(f'out must be a writeable, contiguous uint8 array of shape '
                         f'{(*recipe.size, 3)}, not {out.dtype} {out.shape}')


def _apply(image: np.ndarray, steps: list, parameters: Mapping[str, Any],
           size: Size) -> np.ndarray:
    for name, step in steps:
        if parameters[f'{name}.apply']:
            operation = type(step).__name__
            if image.ndim == 2 and operation not in _TAKE_GREY:
                image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
            image = OPERATIONS[operation](image, step, Scope(parameters, f'{name}.'), size)
    return image


# Geometry

def _cut(tile: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Return the crop of the tile in its orientation; it may share the tile's memory."""
    top, left, height, width = parameters['crop'].tolist()
    return orient(tile[top:top + height, left:left + width], int(parameters['orientation']))


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Flip and transpose an image, see :func:`.recipe.orientation_of`."""
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


def _resize(image: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None
            ) -> np.ndarray:
    """Resize bilinearly to RGB, with antialiasing where the image shrinks, as PIL does."""
    if out is None:
        out = np.empty((*size, 3), np.uint8)
    grows = image.shape[0] <= size[0] and image.shape[1] <= size[1]
    if image.ndim == 2:
        image = cv2.resize(image, size[::-1]) if grows else image
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[:2] == size:
        np.copyto(out, image)
    elif grows:
        cv2.resize(image, size[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
    else:
        # OpenCV has no such resize; torch's, for bytes, is PIL's algorithm with SIMD.
        if not image.flags.writeable:
            image = image.copy()
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        small = torch.nn.functional.interpolate(pixels, size=size, mode='bilinear',
                                                antialias=True)
        np.copyto(out, small[0].permute(1, 2, 0).numpy())
    return out


# Operations: they return a new image and leave the old one as it is, which may be the tile.
# Where only one channel matters they may return a grey image (H, W).

def _color_jitter(image: np.ndarray, step: ColorJitter, drawn: Scope, size: Size
                  ) -> np.ndarray:
    for which in drawn['order'].tolist():
        if which == 0:
            factor = float(drawn['brightness'])
            if factor > _HEADROOM:
                image = _resize(image, size)
            image = _brightness(image, factor)
        elif which == 1:
            image = _contrast(image, float(drawn['contrast']))
        elif which == 2:
            image = _saturation(image, float(drawn['saturation']))
        else:
            image = _hue(image, float(drawn['hue']))
    return image


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return image
    return cv2.convertScaleAbs(image, alpha=factor, beta=_TRUNCATE)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return image
    mean = math.floor(sum(map(operator.mul, _LUMA, cv2.mean(image))) + 0.5)
    offset = (1 - factor) * mean + _TRUNCATE
    return cv2.transform(image, factor * _SAME + offset * _ADDED)


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return image
    return cv2.transform(image, factor * _SAME + (1 - factor) * _GREY + _TRUNCATE * _ADDED)


def _hue(image: np.ndarray, turn: float) -> np.ndarray:
    if turn == 0:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    # PIL counts 255 steps in the circle and cuts, where OpenCV counts 256 and rounds.
    hsv[..., 0] += np.uint8(round(int(turn * 255) * 256 / 255 + _TRUNCATE) % 256)  # wraps around
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _grayscale(image: np.ndarray, step: Grayscale, drawn: Scope, size: Size) -> np.ndarray:
    # One channel, until an operation or the view needs three: a third of the work.
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _gaussian_blur(image: np.ndarray, step: GaussianBlur, drawn: Scope, size: Size
                   ) -> np.ndarray:
    sigma = float(drawn['sigma'])
    along_x = gaussian_kernel(sigma * image.shape[1] / size[1])
    along_y = gaussian_kernel(sigma * image.shape[0] / size[0])
    return cv2.sepFilter2D(image, -1, along_x, along_y, borderType=cv2.BORDER_REPLICATE)


def gaussian_kernel(sigma: float) -> np.ndarray:
    """Return PIL's Gaussian of variance sigma²: a box thrice convolved with itself.

    The box has half a side of r + f pixels, its outermost ones counting f (the extended box
    of Gwosdek et al. 2011). Unlike a sampled Gaussian it keeps its variance if sigma is small.

    Args:
        sigma: standard deviation in pixels.

    Returns:
        float32 (n,), n odd, of sum 1.
    """
    variance = sigma * sigma / 3
    r = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    inner = 2 * r + 1
    f = inner * (r * (r + 1) - 3 * variance) / (6 * (variance - (r + 1) ** 2))
    box = np.full(inner + 2, 1 / (inner + 2 * f))
    box[0] = box[-1] = f / (inner + 2 * f)
    return np.convolve(np.convolve(box, box), box).astype(np.float32)


def _solarize(image: np.ndarray, step: Solarize, drawn: Scope, size: Size) -> np.ndarray:
    values = np.arange(256, dtype=np.uint8)
    return cv2.LUT(image, np.where(values < step.threshold, values, 255 - values))


_DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


def _hed_jitter(image: np.ndarray, step: HEDJitter, drawn: Scope, size: Size) -> np.ndarray:
    # One matrix takes densities to densities; here they are natural logarithms, negated.
    matrix = density_map(np.asarray(drawn['scale']), np.asarray(drawn['shift']))
    matrix[:, 3] *= math.log(10)
    density = cv2.transform(cv2.LUT(image, _DENSITY), -matrix)
    return cv2.convertScaleAbs(cv2.exp(density), alpha=255)


def _distortion(image: np.ndarray, step: Distortion, drawn: Scope, size: Size
                ) -> np.ndarray:
    x, y = step.positions(drawn, image.shape[:2])
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _one_of(image: np.ndarray, step: OneOf, drawn: Scope, size: Size) -> np.ndarray:
    chosen, drawn = step.chosen(drawn)
    return OPERATIONS[type(chosen).__name__](image, chosen, drawn, size)


OPERATIONS: dict[str, Callable[[np.ndarray, Any, Scope, Size], np.ndarray]] = {
    'ColorJitter': _color_jitter,
    'Grayscale': _grayscale,
    'GaussianBlur': _gaussian_blur,
    'Solarize': _solarize,
    'HEDJitter': _hed_jitter,
    'ElasticDistortion': _distortion,
    'GridDistortion': _distortion,
    'OpticalDistortion': _distortion,
    'OneOf': _one_of,
    **OPENCV,
}
