"""Steps that change colours: jitter, grey, hue and saturation."""

import math
import operator
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from ...values import Fraction, NotNegative, Range, Rising
from ..draws import Draws
from .base import ImageStep, Scope, Size, check_limit, check_range, registered, uniform
from .pixels import LUMA, TRUNCATE, column, from_hsv, luma, resize, to_hsv

__all__ = ['ColorJitter', 'Grayscale', 'HueSaturationValue']

Change = NotNegative | Annotated[tuple[NotNegative, NotNegative], Rising()]
Turn = (Annotated[float, Range(0, 0.5)]
        | Annotated[tuple[Annotated[float, Range(-0.5, 0.5)], Annotated[float, Range(-0.5, 0.5)]],
                    Rising()])

# A view that is brightened more than this is enlarged before: interpolation between pixels
# that were cut to 255 is not what cutting after the interpolation gives.
_HEADROOM = 1.1
# Terms of matrices (3, 4) that take (R, G, B, 1) to colours
_SAME, _GREY, _ADDED = np.eye(3, 4), np.array([[*LUMA, 0]] * 3), np.array([[0, 0, 0, 1.]] * 3)


@registered
@dataclass(kw_only=True)
class ColorJitter(ImageStep):
    """Change brightness, contrast, saturation and hue in random order (torchvision, PIL).

    Each factor is drawn uniformly. Brightness and contrast blend the view with black and
    with its mean grey, saturation with its grey version; the results are cut to 0..255 and
    to whole numbers after each. Hue is turned in HSV.

    Args:
        brightness: largest change v of the factor, drawn from [max(0, 1 - v), 1 + v], or
            the range itself.
        contrast: the same for contrast.
        saturation: the same for saturation.
        hue: largest turn v of the hue, drawn from [-v, v], at most 0.5 (half the circle),
            or the range itself.
        p: probability with which a view undergoes the step.
    """

    brightness: Change = 0.
    contrast: Change = 0.
    saturation: Change = 0.
    hue: Turn = 0.

    def __post_init__(self):
        super().__post_init__()
        for name in ('brightness', 'contrast', 'saturation', 'hue'):
            low, high = (-0.5, 0.5) if name == 'hue' else (0., float('inf'))
            check_range(f'ColorJitter: {name}', self._range(name), low, high)

    def _range(self, name: str) -> tuple[float, float]:
        value = getattr(self, name)
        if not isinstance(value, (int, float)):
            return value
        return (-value, value) if name == 'hue' else (max(0., 1 - value), 1 + value)

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        drawn = {name: uniform((batch,), *self._range(name), generator)
                 for name in ('brightness', 'contrast', 'saturation', 'hue')}
        drawn['order'] = generator.rand(4).argsort(dim=1)
        return drawn

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        for which in drawn['order'].tolist():
            if which == 0:
                factor = float(drawn['brightness'])
                if factor > _HEADROOM:
                    image = resize(image, size, interpolation=drawn.interpolation)
                image = _brightened(image, factor)
            elif which == 1:
                image = _contrasted(image, float(drawn['contrast']))
            elif which == 2:
                image = _saturated(image, float(drawn['saturation']))
            else:
                image = _hue_turned(image, float(drawn['hue']))
        return image

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        enhancers = (('brightness', ImageEnhance.Brightness), ('contrast', ImageEnhance.Contrast),
                     ('saturation', ImageEnhance.Color))
        for which in drawn['order'].tolist():
            if which < 3:
                name, enhancer = enhancers[which]
                view = enhancer(view).enhance(float(drawn[name]))
            else:
                view = _hue_turned_by_pil(view, float(drawn['hue']))
        return view

    def prepare_torch(self, drawn: Scope) -> Tensor:
        factors = torch.stack([drawn[name] for name in ('brightness', 'contrast', 'saturation')], 1)
        turn = drawn.where_applied(drawn['hue'][:, None], 0.)
        return torch.cat([drawn.where_applied(factors, 1.), turn, drawn['order']], 1)

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        # An order of each view's own. Three of the changes blend with black, the mean grey and
        # the grey; all four are made in every place, and one is taken.
        turn = column(numbers, 3)
        for place in range(4, 8):
            which = column(numbers, place)
            grey = luma(view)
            mean = (grey.mean((1, 2, 3), keepdim=True) + 0.5).floor()
            ground = torch.where(which == 1, mean, torch.where(which == 2, grey, 0.))
            factor = torch.where(which == 0, column(numbers, 0), torch.where(
                which == 1, column(numbers, 1), torch.where(which == 2, column(numbers, 2), 1.)))
            blended = (ground + factor * (view - ground)).clamp(0, 255).floor()
            view = torch.where((which == 3) & (turn != 0), _hue_turned_by_torch(view, turn),
                               blended)
        return view


def _brightened(image: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return image
    return cv2.convertScaleAbs(image, alpha=factor, beta=TRUNCATE)


def _contrasted(image: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return image
    mean = math.floor(sum(map(operator.mul, LUMA, cv2.mean(image))) + 0.5)
    offset = (1 - factor) * mean + TRUNCATE
    return cv2.transform(image, factor * _SAME + offset * _ADDED)


def _saturated(image: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return image
    return cv2.transform(image, factor * _SAME + (1 - factor) * _GREY + TRUNCATE * _ADDED)


def _hue_turned(image: np.ndarray, turn: float) -> np.ndarray:
    if turn == 0:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    # PIL counts 255 steps in the circle and cuts, where OpenCV counts 256 and rounds.
    hsv[..., 0] += np.uint8(round(int(turn * 255) * 256 / 255 + TRUNCATE) % 256)  # wraps around
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _hue_turned_by_pil(view: Image.Image, turn: float) -> Image.Image:
    if turn == 0:
        return view
    hue, saturation, value = view.convert('HSV').split()
    hue = hue.point([(h + int(turn * 255)) % 256 for h in range(256)])
    return Image.merge('HSV', (hue, saturation, value)).convert('RGB')


def _hue_turned_by_torch(view: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by ``turn`` (B, 1, 1, 1) of a circle of 255 steps, in HSV."""
    hue, saturation, value = to_hsv(view)
    return from_hsv((hue + (turn * 255).trunc()).remainder(256), saturation, value)


@registered
@dataclass(kw_only=True)
class Grayscale(ImageStep):
    """Replace the three channels by their luma (ITU-R 601-2).

    Args:
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.2

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        # One channel, until a step or the view needs three: a third of the work.
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        return view.convert('L').convert('RGB')

    def prepare_torch(self, drawn: Scope) -> Tensor:
        return drawn['apply'][:, None]

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        return torch.where(column(numbers, 0) > 0, luma(view), view)


@registered
@dataclass(kw_only=True)
class HueSaturationValue(ImageStep):
    """Shift hue, saturation and value in HSV.

    Args:
        hue: largest turn of the hue either way, in steps of 2 degrees.
        saturation: largest change of the saturation either way, of 255.
        value: largest change of the value either way, of 255.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    hue: Annotated[float, Range(0, 90)] = 10.
    saturation: Annotated[float, Range(0, 255)] = 20.
    value: Annotated[float, Range(0, 255)] = 10.

    def __post_init__(self):
        super().__post_init__()
        for name, high in (('hue', 90), ('saturation', 255), ('value', 255)):
            check_limit(self, name, high)

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        limits = torch.tensor([self.hue, self.saturation, self.value])
        return {'shift': uniform((batch, 3), -1, 1, generator) * limits}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        hue, saturation, value = np.rint(drawn['shift']).astype(int).tolist()
        levels = np.arange(256)
        table = np.stack([(levels + hue) % 180, np.clip(levels + saturation, 0, 255),
                          np.clip(levels + value, 0, 255)], axis=-1).astype(np.uint8)
        hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table[None])
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        shift = np.asarray(drawn['shift'], np.float64) * (256 / 180, 1, 1)
        hsv = np.asarray(view.convert('HSV')).astype(np.float64) + shift
        hsv[..., 0] %= 256
        return Image.fromarray(hsv.round().clip(0, 255).astype(np.uint8), 'HSV').convert('RGB')

    def prepare_torch(self, drawn: Scope) -> Tensor:
        return torch.cat([drawn['apply'][:, None], drawn['shift']], 1)

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        hue, saturation, value = to_hsv(view)
        hue = (hue + column(numbers, 1) * (256 / 180)).remainder(256).round()
        saturation = (saturation + column(numbers, 2)).round().clamp(0, 255)
        value = (value + column(numbers, 3)).round().clamp(0, 255)
        return torch.where(column(numbers, 0) > 0, from_hsv(hue, saturation, value), view)
