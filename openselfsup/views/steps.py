"""What all steps of a recipe have in common.

A step is a small dataclass of settings. It draws its parameters for a whole batch at once
and renders nothing itself: `render_cpu.OPERATIONS` and `render_pil.OPERATIONS` hold one
function for each class that changes pixels, under the name of the class, and so does
`render_torch.OPERATIONS` where a whole batch can be changed at once. A new operation is one class
here, one entry in `recipe.STEPS` and one function in each renderer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from ..values import Fraction

GEOMETRIES = ('axis_aligned', 'affine', 'none')


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator,
            dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw numbers from [low, high)."""
    return torch.rand(shape, generator=generator, dtype=dtype) * (high - low) + low


def check_range(name: str, value: Any, low: float, high: float = float('inf')) -> None:
    """Raise ValueError unless ``value`` is a pair of rising numbers within [low, high]."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(f'{name} must be two numbers with {low} <= low <= high <= {high}, '
                         f'not {value!r}')


@dataclass(kw_only=True)
class Step:
    """One entry of a recipe.

    Args:
        p: probability with which a view undergoes the step.

    Attributes:
        geometry: the most that the step may do to the map from view to tile, one of
            'axis_aligned', 'affine' and 'none' (no affine map remains).
    """

    p: Fraction = 1.
    geometry: ClassVar[str] = 'axis_aligned'

    def __post_init__(self):
        if not 0 <= self.p <= 1:
            raise ValueError(f'{type(self).__name__}: p must be in [0, 1], not {self.p!r}')


class GeometricStep(Step):
    """A step that chooses which part of the tile a view shows, and how it lies in it."""

    def draw(self, size: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw the step for a batch of frames (half-made views, in pixels of the tile).

        Args:
            size: (height, width) of the frames before the step, int64 (B, 2).
            generator: source of the random numbers, on the CPU.

        Returns:
            Maps from the new frame's pixels to the old frame's, float64 (B, 2, 3), with
            pixel edges at integers, and the sizes of the new frames, int64 (B, 2).
        """
        raise NotImplementedError


class ImageStep(Step):
    """A step that changes pixels.

    Attributes:
        after_resize: whether it needs the pixels of the finished view. Otherwise the
            renderer is free to apply it to the crop before this is enlarged.
    """

    after_resize: ClassVar[bool] = False

    def draw(self, batch: int, size: tuple[int, int], generator: Generator
             ) -> dict[str, Tensor]:
        """Draw the step's parameters for ``batch`` views of ``size`` (height, width).

        Returns:
            Tensors on the CPU with leading dimension ``batch``; lengths among them are in
            pixels of the view.
        """
        raise NotImplementedError


class Scope:
    """The parameters of one step of one view, under the names that the step gave them.

    Args:
        parameters: the parameters of one view.
        prefix: the step's name and a dot.
    """

    __slots__ = ('parameters', 'prefix')

    def __init__(self, parameters: Mapping[str, Any], prefix: str):
        self.parameters, self.prefix = parameters, prefix

    def __getitem__(self, key: str) -> Any:
        return self.parameters[self.prefix + key]
