"""Steps that move the pixels of the finished view: no affine map remains.

Each gives the positions at which the view is sampled; a position beyond the edges is
mirrored. Positions are in pixels with pixel centres at integers.
"""

import functools
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import cv2
import numpy as np
import torch
from torch import Generator, Tensor

from ..values import Count, Fraction, NotNegative, Range
from .steps import ImageStep, Scope, uniform


class Distortion(ImageStep):
    """A step that moves the pixels of the finished view."""

    geometry: ClassVar[str] = 'none'
    after_resize: ClassVar[bool] = True

    def positions(self, drawn: Scope, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the points to sample, each float32 of shape ``size``."""
        raise NotImplementedError


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

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        rows, columns = map(self.points, size)
        return {'noise': torch.randn(batch, 2, rows, columns, generator=generator)}

    def points(self, pixels: int) -> int:
        """Return the number of lattice points along so many pixels."""
        return math.ceil(pixels / self.sigma) + 2 * self.reach

    @property
    def gain(self) -> float:
        """What a lattice point of 1 moves the pixel on it by, in pixels."""
        # It stands for sigma² pixels, each of variance 1/3, beneath the Gaussian's peak.
        return self.alpha * self.sigma / math.sqrt(3) / (2 * math.pi * self.sigma ** 2)

    def positions(self, drawn: Scope, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        by_row, by_column = (_lattice_weights(n, self.points(n), self.sigma, self.reach)
                             for n in size)
        # OpenCV's product, since numpy's starts threads that fight with the loader's.
        dx, dy = (cv2.gemm(cv2.gemm(by_row, n, self.gain, None, 0), by_column, 1, None, 0,
                           flags=cv2.GEMM_2_T) for n in np.asarray(drawn['noise']))
        return (dx + np.arange(size[1], dtype=np.float32),
                dy + np.arange(size[0], dtype=np.float32)[:, None])


@functools.lru_cache
def _lattice_weights(pixels: int, points: int, sigma: float, reach: int) -> np.ndarray:
    """Return the Gaussian, of peak 1, of each lattice point at each pixel, (pixels, points)."""
    z = np.arange(pixels)[:, None] / sigma - (np.arange(points) - reach)
    return np.exp(-z * z / 2, dtype=np.float32)


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

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        extents = 1 + uniform((batch, 2, self.steps), -self.limit, self.limit, generator)
        return {'extents': extents}

    def positions(self, drawn: Scope, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        along = []
        for pixels, extents in zip(size, np.asarray(drawn['extents'], dtype=np.float64)):
            knots = np.concatenate([[0.], np.cumsum(extents)])
            knots = knots / knots[-1] if knots[-1] > 0 else np.linspace(0, 1, self.steps + 1)
            centres = (np.arange(pixels) + 0.5) / pixels
            source = np.interp(centres, np.linspace(0, 1, self.steps + 1), knots)
            along.append((source * pixels - 0.5).astype(np.float32))
        y, x = along
        return np.broadcast_to(x, size), np.broadcast_to(y[:, None], size)
