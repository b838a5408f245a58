"""Steps that choose the part of the tile that a view shows: crop, flips, turns, affine.

Maps are float64 and in pixels, with pixel edges at integers. Crops, flips, quarter turns and
transposes only ever add, subtract and swap integers: in any order they stay exact.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...values import BelowOne, Fraction, NotNegative, Part, Positive, Rising
from ..draws import Draws
from .base import GeometricStep, Geometry, check_range, registered, uniform

__all__ = ['CenterCrop', 'HorizontalFlip', 'QuarterTurn', 'RandomCrop', 'RandomResizedCrop',
           'ShiftScaleRotate', 'Transpose', 'VerticalFlip']


def _maps(batch: int, linear: list[list[float]]) -> Tensor:
    """Return ``batch`` maps of shape (2, 3) with the same linear part and no offset."""
    maps = torch.zeros(batch, 2, 3, dtype=torch.float64)
    maps[:, :, :2] = torch.tensor(linear, dtype=torch.float64)
    return maps


@registered
@dataclass(kw_only=True)
class RandomResizedCrop(GeometricStep):
    """Crop a random part, as torchvision's transform of that name.

    Ten times an area and an aspect ratio are tried; if none fits, the largest central crop
    whose aspect ratio is in range is taken. The crop is a rectangle of whole pixels.

    Args:
        scale: range of the crop's share of the area.
        ratio: range of width / height, drawn uniformly in its logarithm.
        p: probability with which a view undergoes the step.
    """

    scale: Annotated[tuple[Fraction, Fraction], Rising()] = (0.08, 1.)
    ratio: Annotated[tuple[Positive, Positive], Rising()] = (3 / 4, 4 / 3)
    tries: ClassVar[int] = 10

    def __post_init__(self):
        super().__post_init__()
        check_range('RandomResizedCrop: scale', self.scale, 0, 1)
        check_range('RandomResizedCrop: ratio', self.ratio, 1e-6)

    def draw(self, size: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        shape = (len(size), self.tries)
        height, width = size.double().unbind(-1)
        area = uniform(shape, *self.scale, generator, torch.float64) * (height * width)[:, None]
        low, high = (math.log(ratio) for ratio in self.ratio)
        ratio = uniform(shape, low, high, generator, torch.float64).exp()
        tried = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=-1).round()
        fits = ((tried > 0) & (tried <= size[:, None])).all(-1)  # B tries
        found = fits.any(1, keepdim=True)
        first = tried[torch.arange(len(size)), fits.to(torch.uint8).argmax(1)]
        crop = torch.where(found, first, self._central(height, width))
        room = size - crop
        corner = (uniform((len(size), 2), 0, 1, generator, torch.float64) * (room + 1)).floor()
        # The product may be rounded up to room + 1.
        corner = torch.where(found, torch.minimum(corner, room), (room / 2).floor())
        maps = _maps(len(size), [[1, 0], [0, 1]])
        maps[:, :, 2] = corner.flip(-1)
        return maps, crop.long()

    def _central(self, height: Tensor, width: Tensor) -> Tensor:
        """Return (height, width) of the largest crops of an allowed ratio, (B, 2)."""
        low, high = self.ratio
        return torch.stack([torch.minimum(height, (width / low).round()),
                            torch.minimum(width, (height * high).round())], dim=-1)


@registered
@dataclass(kw_only=True)
class CenterCrop(GeometricStep):
    """Cut out the square in the middle.

    Resizing the shorter side to 256 pixels and cutting out 224 of them is ``share=224 / 256``.

    Args:
        share: its side as a share of the frame's shorter side.
        p: probability with which a view undergoes the step.
    """

    share: Part = 0.875

    def __post_init__(self):
        super().__post_init__()
        _check_share(self.share)

    def draw(self, size: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        side = _side(size, self.share)
        maps = _maps(len(size), [[1, 0], [0, 1]])
        maps[:, :, 2] = ((size - side) // 2).flip(-1)
        return maps, side


@registered
@dataclass(kw_only=True)
class RandomCrop(GeometricStep):
    """Cut out a square of one size anywhere, as torchvision's transform of that name.

    Args:
        share: its side as a share of the frame's shorter side.
        padding: how far it may reach beyond each edge, as a share of the shorter side, too; what
            it shows there is mirrored tissue.
        p: probability with which a view undergoes the step.
    """

    share: Part = 0.875
    padding: Fraction = 0.

    def __post_init__(self):
        super().__post_init__()
        _check_share(self.share)
        if not 0 <= self.padding <= 1:
            raise ValueError(f'padding must be in [0, 1], not {self.padding!r}')

    @property
    def geometry(self) -> Geometry:
        """Affine where it may leave the tile, which is then sampled instead of cut."""
        return 'affine' if self.padding else 'axis_aligned'

    def draw(self, size: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        side = _side(size, self.share)
        reach = (size.amin(1, keepdim=True) * self.padding).round().long()
        room = size - side + 2 * reach
        drawn = uniform((len(size), 2), 0, 1, generator, torch.float64)
        # The product may be rounded up to room + 1.
        corner = torch.minimum((drawn * (room + 1)).floor().long(), room) - reach
        maps = _maps(len(size), [[1, 0], [0, 1]])
        maps[:, :, 2] = corner.flip(-1)
        return maps, side


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f'share must be above 0 and at most 1, not {share!r}')


def _side(size: Tensor, share: float) -> Tensor:
    """Return (side, side) of squares on frames of this (height, width), int64 (B, 2)."""
    return (size.amin(1, keepdim=True) * share).round().clamp(min=1).long().expand(-1, 2)


@registered
@dataclass(kw_only=True)
class HorizontalFlip(GeometricStep):
    """Exchange left and right.

    Args:
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5

    def draw(self, size: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        maps = _maps(len(size), [[-1, 0], [0, 1]])
        maps[:, 0, 2] = size[:, 1]
        return maps, size


@registered
@dataclass(kw_only=True)
class VerticalFlip(GeometricStep):
    """Exchange top and bottom.

    Args:
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5

    def draw(self, size: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        maps = _maps(len(size), [[1, 0], [0, -1]])
        maps[:, 1, 2] = size[:, 0]
        return maps, size


@registered
@dataclass(kw_only=True)
class Transpose(GeometricStep):
    """Exchange rows and columns.

    Args:
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    turns: ClassVar[bool] = True

    def draw(self, size: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        return _maps(len(size), [[0, 1], [1, 0]]), size.flip(-1)


@registered
@dataclass(kw_only=True)
class QuarterTurn(GeometricStep):
    """Turn by 0, 90, 180 or 270 degrees, each equally likely.

    Args:
        p: probability with which a view undergoes the step (and may still turn by 0).
    """

    turns: ClassVar[bool] = True

    def draw(self, size: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        turns = generator.randint(4)
        # Counter-clockwise: after one turn, the new x runs along the old y.
        cos = torch.tensor([1., 0., -1., 0.], dtype=torch.float64)[turns]
        sin = torch.tensor([0., 1., 0., -1.], dtype=torch.float64)[turns]
        new_size = torch.where((turns % 2 == 1)[:, None], size.flip(-1), size)
        old, new = size.double(), new_size.double()
        maps = torch.zeros(len(size), 2, 3, dtype=torch.float64)
        maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 0], maps[:, 1, 1] = cos, -sin, sin, cos
        # The middle stays the middle.
        middle, new_middle = old.flip(-1) / 2, new.flip(-1) / 2
        maps[:, :, 2] = middle - (maps[:, :, :2] * new_middle[:, None]).sum(-1)
        return maps, new_size


@registered
@dataclass(kw_only=True)
class ShiftScaleRotate(GeometricStep):
    """Shift, zoom and rotate about the middle; the frame keeps its size in pixels.

    What the frame then shows beyond the edges of the tile is mirrored tissue. The rotation
    is one of pixels: on a frame that is not square it is no rotation of its fractions.

    Args:
        shift: largest shift, as a share of the frame's height and width.
        scale: the content is zoomed by a factor in [1 - scale, 1 + scale].
        degrees: largest rotation either way.
        p: probability with which a view undergoes the step.
    """

    p: Fraction = 0.5
    shift: NotNegative = 0.1
    scale: BelowOne = 0.1
    degrees: NotNegative = 15.
    geometry: ClassVar[Geometry] = 'affine'

    def __post_init__(self):
        super().__post_init__()
        if self.shift < 0 or not 0 <= self.scale < 1 or self.degrees < 0:
            raise ValueError('ShiftScaleRotate: shift and degrees must not be negative and '
                             f'scale must be in [0, 1), not {self.shift!r}, {self.degrees!r} '
                             f'and {self.scale!r}')

    def draw(self, size: Tensor, generator: Draws) -> tuple[Tensor, Tensor]:
        drawn = uniform((len(size), 4), -1, 1, generator, torch.float64)
        shift_x, shift_y, zoom, turn = drawn.unbind(-1)
        angle, zoom = turn * math.radians(self.degrees), 1 + zoom * self.scale
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        maps = torch.stack([cos, -sin, torch.zeros_like(cos), sin, cos, torch.zeros_like(cos)],
                           dim=-1).view(-1, 2, 3)
        extent = size.double().flip(-1)
        target = (torch.stack([shift_x, shift_y], dim=-1) * self.shift + 0.5) * extent
        maps[:, :, 2] = extent / 2 - (maps[:, :, :2] * target[:, None]).sum(-1)
        return maps, size
