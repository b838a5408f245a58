"""What all steps of a recipe have in common, and the table of them.

A step is a small dataclass of settings. It draws its parameters for a whole batch at once, and
has beside that its renderings: what it does to one view with OpenCV, to one view with PIL (the
reference) and to a batch of views with torch. `registered` puts the class into `STEPS`; recipes
and renderers ask for nothing else, so that a new step is one class in one file.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...values import Fraction
from ..draws import Draws

Geometry = Literal['axis_aligned', 'affine', 'none']
GEOMETRIES = get_args(Geometry)
Interpolation = Literal['bilinear', 'bicubic']
INTERPOLATIONS = get_args(Interpolation)

Size = tuple[int, int]


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Draws,
            dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw numbers of this shape, whose first dimension is the batch, from [low, high)."""
    return generator.rand(*shape[1:], dtype=dtype) * (high - low) + low


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
            'axis_aligned', 'affine' and 'none' (no affine map remains); a class attribute of
            most steps.
    """

    p: Fraction = 1.

    @property
    def geometry(self) -> Geometry:
        """Nothing but crops, flips and quarter turns, where a step does not say otherwise."""
        return 'axis_aligned'

    def __post_init__(self):
        if not 0 <= self.p <= 1:
            raise ValueError(f'{type(self).__name__}: p must be in [0, 1], not {self.p!r}')


STEPS: dict[str, type[Step]] = {}
"""All steps by the name of their class, which is their ``type`` in a recipe."""

AnyStep = TypeVar('AnyStep', bound=type[Step])


def registered(cls: AnyStep) -> AnyStep:
    """Put a step into :data:`STEPS` (a class decorator)."""
    STEPS[cls.__name__] = cls
    return cls


def check_limit(step: Step, name: str, high: float = float('inf')) -> None:
    """Raise ValueError unless the setting is a number within [0, high]."""
    if not 0 <= getattr(step, name) <= high:
        raise ValueError(f'{type(step).__name__}: {name} must be in [0, {high}], '
                         f'not {getattr(step, name)!r}')


class GeometricStep(Step, ABC):
    """A step that chooses which part of the tile a view shows, and how it lies in it.

    It has no renderings of its own: the maps of all such steps of a recipe are composed, and the
    renderers carry out the whole.

    Attributes:
        turns: whether it may exchange rows and columns.
    """

    turns: ClassVar[bool] = False

    @abstractmethod
    def draw(self, size: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        """Draw the step for a batch of frames (half-made views, in pixels of the tile).

        Args:
            size: (height, width) of the frames before the step, int64 (B, 2).
            generator: source of the random numbers.

        Returns:
            Maps from the new frame's pixels to the old frame's, float64 (B, 2, 3), with
            pixel edges at integers, and the sizes of the new frames, int64 (B, 2).
        """


class Scope:
    """The parameters of one step, of one view or of a batch, under the names it gave them.

    Args:
        parameters: the parameters of one view, or of a batch of views.
        prefix: the step's name and a dot.
        interpolation: of the recipe, for a step that enlarges a crop itself.
    """

    __slots__ = ('interpolation', 'parameters', 'prefix')

    def __init__(self, parameters: Mapping[str, Any], prefix: str,
                 interpolation: Interpolation = 'bilinear'):
        self.parameters, self.prefix, self.interpolation = parameters, prefix, interpolation

    def __getitem__(self, key: str) -> Any:
        return self.parameters[self.prefix + key]

    def where_applied(self, values: Tensor, otherwise: Tensor | float) -> Tensor:
        """Return a batch's values (B, n) for the views that undergo the step, others else."""
        return torch.where(self['apply'][:, None], values, otherwise)


class ImageStep(Step, ABC):
    """A step that changes pixels.

    A class that leaves out one of its renderings cannot be used with that renderer: without
    torch's, views are rendered by the loader's workers even where the model is on a GPU.

    Attributes:
        after_resize: whether it needs the pixels of the finished view. Otherwise the
            renderer is free to apply it to the crop before this is enlarged.
        takes_grey: whether `render_opencv` also takes images of one channel, (H, W).
        fuses: whether torch.compile may fuse `render_torch` with its neighbours'. It is of no
            use where that is a product of matrices.
    """

    after_resize: ClassVar[bool] = False
    takes_grey: ClassVar[bool] = False
    fuses: ClassVar[bool] = True

    @abstractmethod
    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        """Draw the step's parameters for ``batch`` views of ``size`` (height, width).

        Returns:
            Tensors on the CPU with leading dimension ``batch``; lengths among them are in
            pixels of the view.
        """

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        """Return what becomes of one view, or of its crop not yet enlarged, with OpenCV.

        Args:
            image: uint8 (H, W, 3), RGB. It may be the tile itself and must not be changed.
            drawn: what :meth:`draw` drew for this view.
            size: (height, width) of the finished view, for lengths in its pixels.

        Returns:
            uint8 of the shape of ``image``; or (H, W) if all channels are the same.
        """
        raise NotImplementedError

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        """Return what becomes of one finished view, an RGB image, as published: plainly."""
        raise NotImplementedError

    def prepare_torch(self, drawn: Scope) -> Tensor:
        """Return the few numbers by which :meth:`render_torch` changes each view.

        Args:
            drawn: what :meth:`draw` drew for a batch, and ``apply``, bool (B,): which views
                undergo the step. The others get the numbers of no change.

        Returns:
            (B, n) on the CPU, of values that float32 holds.
        """
        raise NotImplementedError

    def render_torch(self, view: Tensor, numbers: Tensor) -> Tensor:
        """Return what becomes of a batch of finished views, on any device and without a branch.

        Args:
            view: float32 (B, 3, H, W) of whole numbers in [0, 255].
            numbers: what :meth:`prepare_torch` gave, float32 (B, n) on the same device.

        Returns:
            float32 (B, 3, H, W) of whole numbers in [0, 255].
        """
        raise NotImplementedError

    @classmethod
    def has_rendering(cls, name: str) -> bool:
        """Return whether the class has its ``name``: 'opencv', 'pil' or 'torch'."""
        return getattr(cls, f'render_{name}') is not getattr(ImageStep, f'render_{name}')
