"""Steps that change colour and sharpness and leave every pixel at its place."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from ..values import Fraction, NotNegative, Range, Rising, Span
from .steps import ImageStep, check_range, uniform

Change = NotNegative | Annotated[tuple[NotNegative, NotNegative], Rising()]
Turn = (Annotated[float, Range(0, 0.5)]
        | Annotated[tuple[Annotated[float, Range(-0.5, 0.5)], Annotated[float, Range(-0.5, 0.5)]],
                    Rising()])


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

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        drawn = {name: uniform((batch,), *self._range(name), generator)
                 for name in ('brightness', 'contrast', 'saturation', 'hue')}
        drawn['order'] = torch.rand(batch, 4, generator=generator).argsort(dim=1)
        return drawn


@dataclass(kw_only=True)
class Grayscale(ImageStep):
    """Replace the three channels by their luma (ITU-R 601-2).

    Args:
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.2

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {}


@dataclass(kw_only=True)
class GaussianBlur(ImageStep):
    """Blur with a Gaussian.

    Sigma is the standard deviation in pixels of the view: what PIL's
    ``ImageFilter.GaussianBlur`` (MoCo v2) calls radius and torchvision calls sigma.

    Args:
        sigma: range of the standard deviation.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    sigma: Span = (0.1, 2.)

    def __post_init__(self):
        super().__post_init__()
        check_range('GaussianBlur: sigma', self.sigma, 0)

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {'sigma': uniform((batch,), *self.sigma, generator)}


@dataclass(kw_only=True)
class Solarize(ImageStep):
    """Invert all values from a threshold upwards.

    Args:
        threshold: the lowest value, of 0..255, that is inverted.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.2
    threshold: Annotated[int, Range(0, 256)] = 128

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {}


@dataclass(kw_only=True)
class HEDJitter(ImageStep):
    """Vary the amounts of haematoxylin, eosin and DAB (Tellez et al. 2018).

    The optical density of a pixel, -log10(I / 255), is a sum of the three stains' absorption
    vectors (Ruifrok & Johnston 2001) times their concentrations. Each concentration c becomes
    a c + b, with a and b drawn for each stain of a view, and the sum is put back; intensities
    are cut to 0..255.

    Args:
        scale: largest change of the factor, a in [1 - scale, 1 + scale].
        shift: largest offset, b in [-shift, shift], in units of optical density.
        p: probability with which a view undergoes the step.
    """

    scale: NotNegative = 0.05
    shift: NotNegative = 0.02

    def __post_init__(self):
        super().__post_init__()
        if self.scale < 0 or self.shift < 0:
            raise ValueError('HEDJitter: scale and shift must not be negative, '
                             f'not {self.scale!r} and {self.shift!r}')

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        return {'scale': uniform((batch, 3), 1 - self.scale, 1 + self.scale, generator),
                'shift': uniform((batch, 3), -self.shift, self.shift, generator)}
