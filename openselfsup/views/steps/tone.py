"""Steps that change how light and how rich in contrast a view is.

Amounts are in steps of 1/255 where nothing else is said.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...values import Count, Fraction, NotNegative, Range
from ..draws import Draws
from .base import ImageStep, Scope, Size, check_limit, registered, uniform
from .pixels import column, on_floats

__all__ = ['CLAHE', 'Brightness', 'Contrast', 'Lighting', 'Solarize']

# Principal components of ImageNet's pixels as RGB in [0, 1], by columns, times their deviations.
_COMPONENTS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140],
                        [-0.5836, -0.6948, 0.4203]]) * (0.2175, 0.0188, 0.0045)


@dataclass(kw_only=True)
class _Amount(ImageStep):
    """A step that draws one amount from [-limit, limit]."""

    limit: Fraction = 0.2

    def __post_init__(self):
        super().__post_init__()
        check_limit(self, 'limit', 1)

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {'amount': uniform((batch,), -self.limit, self.limit, generator)}

    def prepare_torch(self, drawn: Scope) -> Tensor:
        return drawn.where_applied(drawn['amount'][:, None], 0.)


@registered
@dataclass(kw_only=True)
class Brightness(_Amount):
    """Add the same to all values.

    Args:
        limit: the sum is u · 255 with u drawn from [-limit, limit].
        p: probability with which a view undergoes the step.
    """

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        amount = round(255 * float(drawn['amount']))
        change = cv2.add if amount > 0 else cv2.subtract
        return change(image, (abs(amount),) * 3 + (0,))  # type: ignore[call-overload]  # a scalar

    @on_floats
    def render_pil(self, view: np.ndarray, drawn: Scope) -> np.ndarray:
        return view + 255 * float(drawn['amount'])

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        return (view + 255 * column(numbers, 0)).round().clamp(0, 255)


@registered
@dataclass(kw_only=True)
class Contrast(_Amount):
    """Multiply all values by the same.

    Args:
        limit: the factor is 1 + u with u drawn from [-limit, limit].
        p: probability with which a view undergoes the step.
    """

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        return cv2.convertScaleAbs(image, alpha=1 + float(drawn['amount']))

    @on_floats
    def render_pil(self, view: np.ndarray, drawn: Scope) -> np.ndarray:
        return view * (1 + float(drawn['amount']))

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        return (view * (1 + column(numbers, 0))).round().clamp(0, 255)


@registered
@dataclass(kw_only=True)
class Lighting(ImageStep):
    """Add one colour along the principal components of ImageNet's pixels (AlexNet, NIPS 2012).

    Args:
        deviation: standard deviation of the amount of each component.
        p: probability with which a view undergoes the step.
    """

    deviation: NotNegative = 0.1

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        amounts = 255 * self.deviation * generator.randn(3)[:, None]  # B 1 3
        # A matrix product would round one view differently in batches of different sizes.
        return {'colour': (amounts * torch.from_numpy(_COMPONENTS).float()).sum(-1)}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        levels = np.arange(256)[:, None] + np.asarray(drawn['colour'])
        return cv2.LUT(image, levels.round().clip(0, 255).astype(np.uint8)[None])

    @on_floats
    def render_pil(self, view: np.ndarray, drawn: Scope) -> np.ndarray:
        return view + np.asarray(drawn['colour'])

    def prepare_torch(self, drawn: Scope) -> Tensor:
        return drawn.where_applied(drawn['colour'], 0.)

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        return (view + numbers[:, :, None, None]).round().clamp(0, 255)


@registered
@dataclass(kw_only=True)
class Solarize(ImageStep):
    """Invert all values from a threshold upwards.

    Args:
        threshold: the lowest value, of 0..255, that is inverted.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.2
    threshold: Annotated[int, Range(0, 256)] = 128
    takes_grey: ClassVar[bool] = True

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        values = np.arange(256, dtype=np.uint8)
        return cv2.LUT(image, np.where(values < self.threshold, values, 255 - values))

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        return ImageOps.solarize(view, self.threshold)

    def prepare_torch(self, drawn: Scope) -> Tensor:
        return torch.where(drawn['apply'], self.threshold, 256)[:, None]

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        return torch.where(view < column(numbers, 0), view, 255 - view)


@registered
@dataclass(kw_only=True)
class CLAHE(ImageStep):
    """Equalise the lightness (CIE Lab) within tiles of the view, with limited contrast.

    Contrast limited adaptive histogram equalisation (Zuiderveld 1994). It has no rendering with
    torch: its histograms, one for each region of each view, are counted by scattered additions,
    which are slow on a GPU and differ from run to run.

    Args:
        clip: the clip limit is drawn from [1, clip].
        grid: tiles along each side.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    clip: Annotated[float, Range(1)] = 4.
    grid: Count = 8
    after_resize: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if self.clip < 1 or self.grid < 1:
            raise ValueError('CLAHE: clip and grid must be at least 1, '
                             f'not {self.clip!r} and {self.grid!r}')

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {'clip': uniform((batch,), 1, self.clip, generator)}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
        clahe = cv2.createCLAHE(float(drawn['clip']), (self.grid, self.grid))
        cv2.insertChannel(clahe.apply(cv2.extractChannel(lab, 0)), lab, 0)
        return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        # OpenCV's is the reference: PIL has none.
        return Image.fromarray(self.render_opencv(np.asarray(view), drawn, view.size[::-1]))
