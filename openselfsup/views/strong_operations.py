"""How the renderers carry out the steps of :mod:`.strong_steps`.

``OPENCV`` and ``PIL`` hold one function each for a step, under its name. CLAHE has no second
form: the reference renderer takes OpenCV's.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFilter

from .steps import Scope
from .strong_steps import (
    CLAHE,
    Brightness,
    Contrast,
    Cutout,
    GaussianNoise,
    HueSaturationValue,
    MedianBlur,
    MotionBlur,
    motion_kernel,
)

Size = tuple[int, int]


# With OpenCV: they return a new image and leave the old one as it is.

def _brightness(image: np.ndarray, step: Brightness, drawn: Scope, size: Size) -> np.ndarray:
    amount = round(255 * float(drawn['amount']))
    change = cv2.add if amount > 0 else cv2.subtract
    return change(image, (abs(amount),) * 3 + (0,))


def _contrast(image: np.ndarray, step: Contrast, drawn: Scope, size: Size) -> np.ndarray:
    return cv2.convertScaleAbs(image, alpha=1 + float(drawn['amount']))


def _hue_saturation_value(image: np.ndarray, step: HueSaturationValue, drawn: Scope,
                          size: Size) -> np.ndarray:
    hue, saturation, value = np.rint(drawn['shift']).astype(int).tolist()
    levels = np.arange(256)
    table = np.stack([(levels + hue) % 180, np.clip(levels + saturation, 0, 255),
                      np.clip(levels + value, 0, 255)], axis=-1).astype(np.uint8)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table[None])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _motion_blur(image: np.ndarray, step: MotionBlur, drawn: Scope, size: Size) -> np.ndarray:
    kernel = motion_kernel(int(drawn['length']), float(drawn['angle']))
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def _median_blur(image: np.ndarray, step: MedianBlur, drawn: Scope, size: Size) -> np.ndarray:
    return cv2.medianBlur(image, int(drawn['side']))


def _gaussian_noise(image: np.ndarray, step: GaussianNoise, drawn: Scope, size: Size
                    ) -> np.ndarray:
    return cv2.add(image, _noise(drawn, image.shape), dtype=cv2.CV_8U)


def _noise(drawn: Scope, shape: tuple[int, ...]) -> np.ndarray:
    """Return noise in whole numbers, int16; OpenCV keeps a generator for each thread."""
    noise = np.empty(shape, np.int16)
    cv2.setRNGSeed(int(drawn['seed']))
    return cv2.randn(noise, (0,) * 4, (float(drawn['deviation']),) * 4)


def _clahe(image: np.ndarray, step: CLAHE, drawn: Scope, size: Size) -> np.ndarray:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    clahe = cv2.createCLAHE(float(drawn['clip']), (step.grid, step.grid))
    cv2.insertChannel(clahe.apply(cv2.extractChannel(lab, 0)), lab, 0)
    return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)


def _cutout(image: np.ndarray, step: Cutout, drawn: Scope, size: Size) -> np.ndarray:
    (top, left), (bottom, right) = np.asarray(drawn['edges']).tolist()
    image = image.copy()
    image[top:bottom, left:right] = 0
    return image


OPENCV: dict[str, Callable[[np.ndarray, Any, Scope, Size], np.ndarray]] = {
    'Brightness': _brightness, 'Contrast': _contrast, 'HueSaturationValue': _hue_saturation_value,
    'MotionBlur': _motion_blur, 'MedianBlur': _median_blur, 'GaussianNoise': _gaussian_noise,
    'CLAHE': _clahe, 'Cutout': _cutout}


# With PIL and numpy, plain on purpose.

def _numpy(change: Callable[[np.ndarray, Any, Scope], np.ndarray]) -> Callable:
    """Turn a function on float values 0..255 into one on PIL images."""
    def operation(view: Image.Image, step: Any, drawn: Scope) -> Image.Image:
        changed = change(np.asarray(view).astype(np.float64), step, drawn)
        return Image.fromarray(changed.round().clip(0, 255).astype(np.uint8))
    return operation


@_numpy
def _plain_brightness(view: np.ndarray, step: Brightness, drawn: Scope) -> np.ndarray:
    return view + 255 * float(drawn['amount'])


@_numpy
def _plain_contrast(view: np.ndarray, step: Contrast, drawn: Scope) -> np.ndarray:
    return view * (1 + float(drawn['amount']))


def _plain_hue_saturation_value(view: Image.Image, step: HueSaturationValue, drawn: Scope
                                ) -> Image.Image:
    shift = np.asarray(drawn['shift'], np.float64) * (256 / 180, 1, 1)
    hsv = np.asarray(view.convert('HSV')).astype(np.float64) + shift
    hsv[..., 0] %= 256
    return Image.fromarray(hsv.round().clip(0, 255).astype(np.uint8), 'HSV').convert('RGB')


@_numpy
def _plain_motion_blur(view: np.ndarray, step: MotionBlur, drawn: Scope) -> np.ndarray:
    kernel = motion_kernel(int(drawn['length']), float(drawn['angle']))
    reach = len(kernel) // 2
    padded = np.pad(view, ((reach, reach), (reach, reach), (0, 0)), mode='edge')
    height, width = view.shape[:2]
    return sum(kernel[y, x] * padded[y:y + height, x:x + width]
               for y in range(len(kernel)) for x in range(len(kernel)))


def _plain_median_blur(view: Image.Image, step: MedianBlur, drawn: Scope) -> Image.Image:
    return view.filter(ImageFilter.MedianFilter(int(drawn['side'])))


@_numpy
def _plain_gaussian_noise(view: np.ndarray, step: GaussianNoise, drawn: Scope) -> np.ndarray:
    return view + _noise(drawn, view.shape)


def _plain_clahe(view: Image.Image, step: CLAHE, drawn: Scope) -> Image.Image:
    return Image.fromarray(_clahe(np.asarray(view), step, drawn, view.size[::-1]))


@_numpy
def _plain_cutout(view: np.ndarray, step: Cutout, drawn: Scope) -> np.ndarray:
    return _cutout(view, step, drawn, view.shape[:2])


PIL: dict[str, Callable[[Image.Image, Any, Scope], Image.Image]] = {
    'Brightness': _plain_brightness, 'Contrast': _plain_contrast,
    'HueSaturationValue': _plain_hue_saturation_value, 'MotionBlur': _plain_motion_blur,
    'MedianBlur': _plain_median_blur, 'GaussianNoise': _plain_gaussian_noise,
    'CLAHE': _plain_clahe, 'Cutout': _plain_cutout}
