"""Colour deconvolution of H&E images (Ruifrok & Johnston 2001), and the step that varies stains."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...values import NotNegative
from ..draws import Draws
from .base import ImageStep, Scope, Size, registered, uniform
from .pixels import column

__all__ = ['HEDJitter']

# Absorption of red, green and blue light by haematoxylin, eosin and DAB, of length 1.
ABSORPTION = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
ABSORPTION /= np.linalg.norm(ABSORPTION, axis=1, keepdims=True)


def concentrations(image: np.ndarray) -> np.ndarray:
    """Return the amounts of H, E and DAB, float64 (H, W, 3), in an RGB image 0..255.

    Black counts as 1 of 255, whose optical density is 2.4.
    """
    density = -np.log10(np.maximum(image, 1) / 255)
    return density @ np.linalg.inv(ABSORPTION)


def intensities(amounts: np.ndarray) -> np.ndarray:
    """Return the RGB image, float64 (H, W, 3) cut to [0, 255], of amounts of H, E and DAB."""
    return np.clip(255 * 10 ** -(amounts @ ABSORPTION), 0, 255)


def density_map(scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return what scaling and shifting each stain does to the optical densities of a pixel.

    Args:
        scale: factors of the three concentrations, (3,).
        shift: offsets of the three concentrations, (3,).

    Returns:
        Float64 (3, 4), to be applied to (density of R, G, B, 1).
    """
    linear = np.linalg.inv(ABSORPTION) @ np.diag(scale) @ ABSORPTION
    return np.column_stack([linear.T, shift @ ABSORPTION])


_DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


@registered
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

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {'scale': uniform((batch, 3), 1 - self.scale, 1 + self.scale, generator),
                'shift': uniform((batch, 3), -self.shift, self.shift, generator)}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        # One matrix takes densities to densities; here they are natural logarithms, negated.
        matrix = density_map(np.asarray(drawn['scale']), np.asarray(drawn['shift']))
        matrix[:, 3] *= math.log(10)
        density = cv2.transform(cv2.LUT(image, _DENSITY), -matrix)
        return cv2.convertScaleAbs(cv2.exp(density), alpha=255)

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        amounts = concentrations(np.asarray(view))
        amounts = amounts * np.asarray(drawn['scale']) + np.asarray(drawn['shift'])
        return Image.fromarray(intensities(amounts).round().astype(np.uint8))

    def prepare_torch(self, drawn: Scope) -> Tensor:
        absorption = torch.from_numpy(ABSORPTION)
        scale, shift = drawn['scale'].double(), drawn['shift'].double()
        # Densities of a pixel, as a row: d -> (d · A⁻¹ ∘ scale + shift) · A.
        linear = torch.linalg.inv(absorption) @ (scale[:, :, None] * absorption)  # B 3 3
        return torch.cat([drawn['apply'][:, None], linear.flatten(1), shift @ absorption], 1)

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        density = -(view.clamp(min=1) / 255).log10()
        linear = numbers[:, 1:10].view(-1, 3, 3)[..., None, None]  # B 3 3 1 1
        changed = (density[:, :, None] * linear).sum(1) + numbers[:, 10:, None, None]
        image = (255 * torch.pow(10., -changed)).clamp(0, 255).round()
        return torch.where(column(numbers, 0) > 0, image, view)
