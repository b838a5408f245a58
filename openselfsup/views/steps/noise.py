"""Steps that add noise to a view."""

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from ...values import Fraction, Span
from ..draws import Draws
from .base import ImageStep, Scope, Size, check_range, registered, uniform
from .pixels import column, on_floats

__all__ = ['GaussianNoise']


@registered
@dataclass(kw_only=True)
class GaussianNoise(ImageStep):
    """Add independent normal noise to each value.

    Args:
        variance: range of the variance, of 255².
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    variance: Span = (5., 30.)
    after_resize: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        check_range('GaussianNoise: variance', self.variance, 0)

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {'deviation': uniform((batch,), *self.variance, generator).sqrt(),
                'seed': generator.randint(2 ** 31)}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        return cv2.add(image, _noise(drawn, image.shape), dtype=cv2.CV_8U)

    @on_floats
    def render_pil(self, view: np.ndarray, drawn: Scope) -> np.ndarray:
        return view + _noise(drawn, view.shape)

    def prepare_torch(self, drawn: Scope) -> Tensor:
        deviation = drawn.where_applied(drawn['deviation'][:, None], 0.)
        seed = drawn['seed'][:, None]
        return torch.cat([deviation, seed >> 16, seed & 0xffff], 1)  # float32 holds 24 bits

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        # Each value's place in the view, hashed with the seed, is its random number: the same on
        # any device and in any batch, but not what OpenCV's generator gives for that seed.
        high, low = column(numbers, 1).long(), column(numbers, 2).long()
        place = torch.arange(view[0].numel(), device=view.device).view(view.shape[1:])
        key = _hash(_hash((high << 16) | low) + 2 * place)
        first, second = ((_hash(key ^ word) + 0.5) / 2 ** 32 for word in (0, 0x9e3779b9))
        normal = (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()  # Box & Muller 1958
        return (view + (column(numbers, 0) * normal).round()).clamp(0, 255)


def _noise(drawn: Scope, shape: tuple[int, ...]) -> np.ndarray:
    """Return noise in whole numbers, int16; OpenCV keeps a generator for each thread."""
    noise = np.empty(shape, np.int16)
    cv2.setRNGSeed(int(drawn['seed']))
    deviation = float(drawn['deviation'])
    return cv2.randn(noise, (0,) * 4, (deviation,) * 4)  # type: ignore[call-overload]  # scalars


def _hash(numbers: Tensor) -> Tensor:
    """Mix the 32 low bits of int64 numbers (the finaliser of MurmurHash3, public domain)."""
    numbers = numbers & 0xffffffff
    for shift, factor in ((16, 0x85ebca6b), (13, 0xc2b2ae35)):
        numbers = ((numbers ^ (numbers >> shift)) * factor) & 0xffffffff
    return numbers ^ (numbers >> 16)
