"""Steps that move the pixels of the finished view: no affine map remains.

Each gives the positions at which the view is sampled; a position beyond the edges is
mirrored. Positions are in pixels with pixel centres at integers.
"""

import functools
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...values import Count, Fraction, NotNegative, Range
from ..draws import Draws
from .base import Geometry, ImageStep, Scope, Size, check_limit, registered, uniform
from .pixels import column, halves, normal

__all__ = ['ElasticDistortion', 'GridDistortion', 'OpticalDistortion']

CPU = torch.device('cpu')


class Distortion(ImageStep):
    """A step that moves the pixels of the finished view."""

    geometry: ClassVar[Geometry] = 'none'
    after_resize: ClassVar[bool] = True

    @abstractmethod
    def positions(self, drawn: Scope, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the points to sample, each float32 of shape ``size``."""

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        x, y = self.positions(drawn, image.shape[:2])
        return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        image = np.asarray(view).astype(np.float64)
        x, y = self.positions(drawn, image.shape[:2])
        x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
        fx, fy = (x - x0)[..., None], (y - y0)[..., None]
        top = _mirrored(image, y0, x0) * (1 - fx) + _mirrored(image, y0, x0 + 1) * fx
        bottom = _mirrored(image, y0 + 1, x0) * (1 - fx) + _mirrored(image, y0 + 1, x0 + 1) * fx
        return Image.fromarray((top * (1 - fy) + bottom * fy).round().astype(np.uint8))


def _mirrored(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return ``image[y, x]``, positions beyond the edges mirrored about the edges."""
    wrapped = []
    for position, extent in zip((y, x), image.shape):
        position = position % (2 * extent)
        wrapped.append(np.minimum(position, 2 * extent - 1 - position))
    return image[tuple(wrapped)]


def _sample(view: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Take values at fractions (B, H, W) of the view, mirrored beyond its edges."""
    at = torch.stack(torch.broadcast_tensors(x, y), -1) * 2 - 1
    return F.grid_sample(view, at, padding_mode='reflection', align_corners=False).round()


def _centres(pixels: int, device: torch.device) -> Tensor:
    return (torch.arange(pixels, device=device) + 0.5) / pixels


@registered
@dataclass(kw_only=True)
class ElasticDistortion(Distortion):
    """Move each pixel by a smooth random field (Simard, Steinkraus & Platt 2003).

    Both displacements are noise, uniform in [-1, 1] at each pixel, smoothed by a Gaussian and
    multiplied by alpha. Their sum over many pixels is normal, so it is drawn as normal noise
    on a lattice one sigma wide: the same field in distribution from few numbers.

    Args:
        alpha: strength; the displacements have the standard deviation
            0.163 alpha / sigma, in pixels of the view.
        sigma: standard deviation of the smoothing Gaussian in pixels of the view.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    alpha: NotNegative = 200.
    sigma: Annotated[float, Range(1)] = 10.
    reach: ClassVar[int] = 4  # lattice points beyond the edge, and so sigmas

    def __post_init__(self):
        super().__post_init__()
        if self.sigma < 1:
            raise ValueError(f'ElasticDistortion: sigma must be at least 1, not {self.sigma!r}')

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {'seed': generator.randint(2 ** 31)}

    def points(self, pixels: int) -> int:
        """Return the number of lattice points along so many pixels."""
        return math.ceil(pixels / self.sigma) + 2 * self.reach

    @property
    def gain(self) -> float:
        """What a lattice point of 1 moves the pixel on it by, in pixels."""
        # It stands for sigma² pixels, each of variance 1/3, beneath the Gaussian's peak.
        return self.alpha * self.sigma / math.sqrt(3) / (2 * math.pi * self.sigma ** 2)

    def positions(self, drawn: Scope, size: Size) -> tuple[np.ndarray, np.ndarray]:
        by_row, by_column = (self.weights(n).numpy() for n in size)
        seed = torch.as_tensor(drawn['seed']).view(1)
        noise = self.noise(halves(seed), size)[0].numpy()
        # OpenCV's product, since numpy's starts threads that fight with the loader's.
        dx, dy = (_product(_product(by_row, n, self.gain), by_column, 1, cv2.GEMM_2_T)
                  for n in noise)
        return (dx + np.arange(size[1], dtype=np.float32),
                dy + np.arange(size[0], dtype=np.float32)[:, None])

    def prepare_torch(self, drawn: Scope) -> Tensor:
        return torch.cat([drawn['apply'][:, None].float(), halves(drawn['seed'])], 1)

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        sizes = view.shape[2:]
        by_row, by_column = (self.weights(n, view.device) for n in sizes)
        noise = column(numbers, 0) * self.noise(numbers[:, 1:], (sizes[0], sizes[1]))
        dx, dy = (self.gain * by_row @ noise @ by_column.mT).unbind(1)  # B H W each, in pixels
        y, x = (_centres(n, view.device) for n in sizes)
        return _sample(view, x + dx / sizes[1], y[:, None] + dy / sizes[0])

    def noise(self, seed: Tensor, size: Size) -> Tensor:
        """Return the noise of each view on its lattice, float32 (B, 2, rows, columns)."""
        return normal(seed, (2, *map(self.points, size)))

    def weights(self, pixels: int, device: torch.device = CPU) -> Tensor:
        """Return the Gaussian, of peak 1, of each lattice point at each pixel."""
        return _weights(pixels, self.points(pixels), self.sigma, self.reach, device)


def _product(a: np.ndarray, b: np.ndarray, factor: float, flags: int = 0) -> np.ndarray:
    return cv2.gemm(a, b, factor, None, 0, flags=flags)  # type: ignore[call-overload]  # None: no c


@functools.lru_cache
def _weights(pixels: int, points: int, sigma: float, reach: int, device: torch.device) -> Tensor:
    z = torch.arange(pixels, dtype=torch.float64)[:, None] / sigma - (torch.arange(points) - reach)
    return (-z * z / 2).exp().float().to(device)


@registered
@dataclass(kw_only=True)
class GridDistortion(Distortion):
    """Stretch and shrink the rows and the columns of a coarse grid.

    Args:
        steps: cells along each side.
        limit: each cell's extent on the undistorted view is 1 + u times an equal share, u
            drawn from [-limit, limit], before all are scaled to fill the view again.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    steps: Count = 5
    limit: Fraction = 0.3

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1 or not 0 <= self.limit <= 1:
            raise ValueError('GridDistortion: steps must be at least 1 and limit in [0, 1], '
                             f'not {self.steps!r} and {self.limit!r}')

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        extents = 1 + uniform((batch, 2, self.steps), -self.limit, self.limit, generator)
        return {'extents': extents}

    def positions(self, drawn: Scope, size: Size) -> tuple[np.ndarray, np.ndarray]:
        along = []
        for pixels, extents in zip(size, np.asarray(drawn['extents'], dtype=np.float64)):
            knots = np.concatenate([[0.], np.cumsum(extents)])
            knots = knots / knots[-1] if knots[-1] > 0 else np.linspace(0, 1, self.steps + 1)
            centres = (np.arange(pixels) + 0.5) / pixels
            source = np.interp(centres, np.linspace(0, 1, self.steps + 1), knots)
            along.append((source * pixels - 0.5).astype(np.float32))
        y, x = along
        return np.broadcast_to(x, size), np.broadcast_to(y[:, None], size)

    def prepare_torch(self, drawn: Scope) -> Tensor:
        """Return where the lines between cells are taken from, (B, 2 * (steps + 1)), y first."""
        knots = F.pad(drawn['extents'].double().cumsum(-1), (1, 0))  # B 2 steps+1
        even = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        total = knots[..., -1:]
        knots = torch.where(total > 0, knots / total, even)
        return drawn.where_applied(knots.flatten(1), even.repeat(2))

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        along = []
        for pixels, knots in zip(view.shape[2:], numbers.unflatten(1, (2, -1)).unbind(1)):
            place = _centres(pixels, view.device) * self.steps
            cell = place.long()
            start, end = knots[:, cell], knots[:, cell + 1]
            along.append(start + (place - cell) * (end - start))  # B pixels
        y, x = along
        return _sample(view, x[:, None], y[:, :, None])


@registered
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
        check_limit(self, 'limit')

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        return {'k': uniform((batch,), -self.limit, self.limit, generator)}

    def positions(self, drawn: Scope, size: Size) -> tuple[np.ndarray, np.ndarray]:
        y, x = ((np.arange(pixels, dtype=np.float32) + 0.5) / pixels - 0.5 for pixels in size)
        squared = x ** 2 + y[:, None] ** 2
        factor = 1 + float(drawn['k']) * (squared + squared ** 2)
        return ((x * factor + 0.5) * size[1] - 0.5, (y[:, None] * factor + 0.5) * size[0] - 0.5)

    def prepare_torch(self, drawn: Scope) -> Tensor:
        return drawn.where_applied(drawn['k'][:, None], 0.)

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        y, x = (_centres(n, view.device) - 0.5 for n in view.shape[2:])
        y = y[:, None]
        squared = x ** 2 + y ** 2  # H W
        factor = 1 + numbers[:, :, None] * (squared + squared ** 2)  # B H W
        return _sample(view, x * factor + 0.5, y * factor + 0.5)
