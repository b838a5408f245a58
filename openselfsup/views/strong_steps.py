"""The steps of CA2CL's strong and weak views that other recipes do without.

Cluster-aware adversarial contrastive learning (JBHI 2025). Amounts are those of the finished
view, in steps of 1/255 where nothing else is said. Steps that look at more than one pixel work
on the finished view, so that sizes in pixels mean the same whatever was cropped.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from ..values import Count, Fraction, NotNegative, Range, Span
from .distortion_steps import Distortion
from .steps import ImageStep, Scope, check_range, uniform


def _check_limit(step: ImageStep, name: str, high: float = float('inf')) -> None:
    """Raise ValueError unless the setting is a number within [0, high]."""
    if not 0 <= getattr(step, name) <= high:
        raise ValueError(f'{type(step).__name__}: {name} must be in [0, {high}], '
                         f'not {getattr(step, name)!r}')


@dataclass(kw_only=True)
class Brightness(ImageStep):
    """Add the same to all values.

    Args:
        limit: the sum is u · 255 with u drawn from [-limit, limit].
        p: probability with which a view undergoes the step.
    """

    limit: Fraction = 0.2

    def __post_init__(self):
        super().__post_init__()
        _check_limit(self, 'limit', 1)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {'amount': uniform((batch,), -self.limit, self.limit, generator)}


@dataclass(kw_only=True)
class Contrast(ImageStep):
    """Multiply all values by the same.

    Args:
        limit: the factor is 1 + u with u drawn from [-limit, limit].
        p: probability with which a view undergoes the step.
    """

    limit: Fraction = 0.2

    def __post_init__(self):
        super().__post_init__()
        _check_limit(self, 'limit', 1)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {'amount': uniform((batch,), -self.limit, self.limit, generator)}


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
            _check_limit(self, name, high)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        limits = torch.tensor([self.hue, self.saturation, self.value])
        return {'shift': uniform((batch, 3), -1, 1, generator) * limits}


@dataclass(kw_only=True)
class MotionBlur(ImageStep):
    """Average along a short line.

    Args:
        limit: largest length in pixels, odd; it is drawn from 3, 5, ..., limit. The direction
            is drawn evenly.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    limit: Literal[3, 5] = 5
    after_resize: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        _check_odd(self)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {'length': _odd(batch, self.limit, generator),
                'angle': uniform((batch,), 0, math.pi, generator)}


def motion_kernel(length: int, angle: float) -> np.ndarray:
    """Return the weights of a line through the middle, float32 (length, length), of sum 1.

    Each of ``length`` points along the line is shared by the four pixels around it.
    """
    kernel = np.zeros((length + 2, length + 2), np.float32)
    steps = np.arange(length) - length // 2
    x, y = steps * math.cos(angle), steps * math.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    middle = length // 2 + 1
    for dy in (0, 1):
        for dx in (0, 1):
            share = (1 - abs(x - left - dx)) * (1 - abs(y - top - dy))
            np.add.at(kernel, (top + dy + middle, left + dx + middle), share)
    return kernel[1:-1, 1:-1] / kernel[1:-1, 1:-1].sum()


@dataclass(kw_only=True)
class MedianBlur(ImageStep):
    """Replace each value by the median of the square around it, each channel by itself.

    Args:
        limit: largest side of the square in pixels, 3 or 5; it is drawn from 3 and that.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    limit: Literal[3, 5] = 5
    after_resize: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        _check_odd(self)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {'side': _odd(batch, self.limit, generator)}


def _check_odd(step: ImageStep) -> None:
    if step.limit not in (3, 5):
        raise ValueError(f'{type(step).__name__}: limit must be 3 or 5, not {step.limit!r}')


def _odd(batch: int, limit: int, generator: Generator) -> Tensor:
    """Draw from 3, 5, ..., limit."""
    return 3 + 2 * torch.randint((limit - 1) // 2, (batch,), generator=generator)


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

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {'deviation': uniform((batch,), *self.variance, generator).sqrt(),
                'seed': torch.randint(2 ** 31, (batch,), generator=generator)}


@dataclass(kw_only=True)
class CLAHE(ImageStep):
    """Equalise the lightness (CIE Lab) within tiles of the view, with limited contrast.

    Contrast limited adaptive histogram equalisation (Zuiderveld 1994).

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

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {'clip': uniform((batch,), 1, self.clip, generator)}


@dataclass(kw_only=True)
class Cutout(ImageStep):
    """Blacken a rectangle (DeVries & Taylor 2017); what lies beyond the edge is lost.

    Args:
        size: its sides as shares of the view's. Its middle is drawn evenly from the view.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    size: Fraction = 0.375
    after_resize: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        _check_limit(self, 'size', 1)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        extent = torch.tensor(size, dtype=torch.float32)
        half = self.size * extent / 2
        middle = torch.rand(batch, 2, generator=generator) * extent
        edges = torch.stack([middle - half, middle + half], dim=1).round().long()  # B 2 (y, x)
        return {'edges': torch.minimum(edges.clamp(min=0), torch.tensor(size))}


@dataclass(kw_only=True)
class OpticalDistortion(Distortion):
    """Bend the view as a lens does: a point at radius r is taken from r (1 + k r² + k r⁴).

    Args:
        limit: k is drawn from [-limit, limit]; radii are measured in sides of the view.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    limit: NotNegative = 1.

    def __post_init__(self):
        super().__post_init__()
        _check_limit(self, 'limit')

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {'k': uniform((batch,), -self.limit, self.limit, generator)}

    def positions(self, drawn: Scope, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        y, x = ((np.arange(pixels, dtype=np.float32) + 0.5) / pixels - 0.5 for pixels in size)
        squared = x ** 2 + y[:, None] ** 2
        factor = 1 + float(drawn['k']) * (squared + squared ** 2)
        return ((x * factor + 0.5) * size[1] - 0.5, (y[:, None] * factor + 0.5) * size[0] - 0.5)
