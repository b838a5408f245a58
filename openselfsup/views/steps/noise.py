"""Steps that add noise to a view."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from ...values import Fraction, Span
from ..draws import Draws
from .base import ImageStep, Scope, Size, check_range, registered, uniform
from .pixels import column, halves, normal, on_floats

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
        return torch.cat([deviation, halves(drawn['seed'])], 1)

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        # Not what OpenCV's generator gives for that seed.
        noise = column(numbers, 0) * normal(numbers[:, 1:], tuple(view.shape[1:]))
        return (view + noise.round()).clamp(0, 255)


def _noise(drawn: Scope, shape: tuple[int, ...]) -> np.ndarray:
    """Return noise in whole numbers, int16; OpenCV keeps a generator for each thread."""
    noise = np.empty(shape, np.int16)
    cv2.setRNGSeed(int(drawn['seed']))
    deviation = float(drawn['deviation'])
    return cv2.randn(noise, (0,) * 4, (deviation,) * 4)  # type: ignore[call-overload]  # scalars
