"""Steps that blur a view.

All but the Gaussian work on the finished view, so that sizes in pixels mean the same whatever was
cropped; the Gaussian's sigma is scaled to the crop.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ...values import Fraction, Span
from ..draws import Draws
from .base import ImageStep, Scope, Size, check_range, registered, uniform
from .pixels import column, matrix_dtype, neighbours, on_floats

__all__ = ['GaussianBlur', 'MedianBlur', 'MotionBlur']


@registered
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
    takes_grey: ClassVar[bool] = True
    fuses: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        check_range('GaussianBlur: sigma', self.sigma, 0)

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {'sigma': uniform((batch,), *self.sigma, generator)}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        sigma = float(drawn['sigma'])
        along_x = gaussian_kernel(sigma * image.shape[1] / size[1])
        along_y = gaussian_kernel(sigma * image.shape[0] / size[0])
        return cv2.sepFilter2D(image, -1, along_x, along_y, borderType=cv2.BORDER_REPLICATE)

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        return view.filter(ImageFilter.GaussianBlur(radius=float(drawn['sigma'])))

    def prepare_torch(self, drawn: Scope) -> Tensor:
        """Return the kernels of a batch, float32 (B, taps), see :func:`gaussian_kernel`.

        All are as wide as the largest sigma asks for; where the step does not apply, the kernel
        is a single 1.
        """
        sigma = torch.where(drawn['apply'], drawn['sigma'].double(), 0.)
        variance = sigma * sigma / 3
        r = (((12 * variance + 1).sqrt() - 1) / 2).floor()
        inner = 2 * r + 1
        f = inner * (r * (r + 1) - 3 * variance) / (6 * (variance - (r + 1) ** 2))
        reach = int(((4 * self.sigma[1] ** 2 + 1) ** 0.5 - 1) / 2) + 1
        offset = torch.arange(-reach, reach + 1).abs()
        box = (offset <= r[:, None]).double() + (offset == r[:, None] + 1) * f[:, None]
        box = box / (inner + 2 * f)[:, None]  # B 2·reach+1
        spectrum = torch.fft.rfft(box, n=6 * reach + 1)
        return torch.fft.irfft(spectrum ** 3, n=6 * reach + 1).float()

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        # Each row and each column times one matrix for each view, edges repeated.
        batch, _, height, width = view.shape
        by_row, by_column = (
            (numbers @ _shifts(n, numbers.shape[1], view.device)).view(batch, n, n)
            .to(matrix_dtype(view.device)) for n in (height, width))
        rows = view.to(by_row.dtype).flatten(1, 2) @ by_column.mT  # B 3H W
        rows = rows.view(batch, 3, height, width).transpose(1, 2).flatten(2)  # B H 3W
        view = (by_row @ rows).view(batch, height, 3, width).transpose(1, 2)
        return view.float().round()


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


def _shifts(length: int, taps: int, device: torch.device) -> Tensor:
    """Return for each tap the matrix that it stands for, (taps, length²), flattened."""
    offsets = torch.arange(taps, device=device) - taps // 2
    places = torch.arange(length, device=device)
    source = (places + offsets[:, None]).clamp(0, length - 1)  # taps length
    return (source[..., None] == places).float().flatten(1)


@registered
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

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {'length': _odd(self.limit, generator),
                'angle': uniform((batch,), 0, math.pi, generator)}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        kernel = motion_kernel(int(drawn['length']), float(drawn['angle']))
        return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)

    @on_floats
    def render_pil(self, view: np.ndarray, drawn: Scope) -> np.ndarray:
        kernel = motion_kernel(int(drawn['length']), float(drawn['angle']))
        reach = len(kernel) // 2
        padded = np.pad(view, ((reach, reach), (reach, reach), (0, 0)), mode='edge')
        height, width = view.shape[:2]
        return sum(kernel[y, x] * padded[y:y + height, x:x + width]
                   for y in range(len(kernel)) for x in range(len(kernel)))

    def prepare_torch(self, drawn: Scope) -> Tensor:
        """Return the kernels of a batch, float32 (B, limit²), see :func:`motion_kernel`."""
        length, angle = drawn['length'], drawn['angle']
        along = torch.arange(self.limit) - self.limit // 2
        direction = torch.stack([angle.sin(), angle.cos()], 1)  # B 2 (y, x)
        points = direction[:, :, None] * along  # B 2 limit
        share = (1 - (along[:, None] - points[:, :, None]).abs()).clamp(min=0)  # B 2 pixels points
        on_line = along.abs() <= drawn.where_applied(length[:, None] // 2, 0)
        kernel = (share[:, 0] * on_line[:, None]) @ share[:, 1].mT  # B y x
        return kernel.flatten(1) / kernel.sum((1, 2))[:, None]

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        blurred = torch.zeros_like(view)
        for tap, neighbour in enumerate(neighbours(view, self.limit)):
            blurred = blurred + column(numbers, tap) * neighbour
        return blurred.round()


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


@registered
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

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {'side': _odd(self.limit, generator)}

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        return cv2.medianBlur(image, int(drawn['side']))

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        return view.filter(ImageFilter.MedianFilter(int(drawn['side'])))

    def prepare_torch(self, drawn: Scope) -> Tensor:
        return drawn.where_applied(drawn['side'][:, None], 1)

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        blurred = view
        for side in range(3, self.limit + 1, 2):
            median = _median(neighbours(view, side, torch.uint8))  # a quarter of float's memory
            blurred = torch.where(column(numbers, 0) == side, median.float(), blurred)
        return blurred


def _median(values: list[Tensor]) -> Tensor:
    """Return the elementwise median of an odd number of tensors, at least 3.

    Forgetful selection: of one more than half of the values, neither the least nor the largest
    is the median; both are dropped, one more value is taken in, and so on. A sort would do, but
    is slow across millions of short rows.
    """
    held, waiting = values[:len(values) // 2 + 2], values[len(values) // 2 + 2:]
    while True:
        for i in range(len(held) - 1):  # the largest goes to the end
            held[i], held[i + 1] = (torch.minimum(held[i], held[i + 1]),
                                    torch.maximum(held[i], held[i + 1]))
        for i in range(len(held) - 2, 0, -1):  # the least to the front
            held[i - 1], held[i] = (torch.minimum(held[i - 1], held[i]),
                                    torch.maximum(held[i - 1], held[i]))
        held = held[1:-1] + waiting[:1]
        waiting = waiting[1:]
        if len(held) == 1:
            return held[0]


def _check_odd(step: MotionBlur | MedianBlur) -> None:
    if step.limit not in (3, 5):
        raise ValueError(f'{type(step).__name__}: limit must be 3 or 5, not {step.limit!r}')


def _odd(limit: int, generator: Draws) -> Tensor:
    """Draw from 3, 5, ..., limit."""
    return 3 + 2 * generator.randint((limit - 1) // 2)
