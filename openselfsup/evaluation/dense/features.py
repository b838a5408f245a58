"""Features of patches: cells of a backbone's feature maps, several maps laid over each other."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ...training.features import feature_maps
from ...training.modes import eval_mode
from ..baselines import (
    COLOUR_HISTOGRAM,
    COLOUR_STATISTICS,
    ColourHistogram,
    ColourStatistics,
)
from ..stages import every_stage

GRAIN = 32  # the coarsest stride of most networks, see grain_of
LAST_TWO, ALL = 'last2', 'all'
NO_NORM = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Images(Protocol):
    """Images by their index, such as a :class:`~openselfsup.datasets.sources.Source`."""

    def __len__(self) -> int:
        """Return their number."""
        ...

    def read(self, index: int, /) -> np.ndarray:
        """Return an image, uint8 (H, W, 3)."""
        ...

    def path(self, index: int, /) -> str:
        """Return what a message should call it."""
        ...


@dataclass(frozen=True)
class Layers:
    """Feature maps that make up the features of a patch.

    Attributes:
        name: as asked for, such as '3+4'.
        numbers: which maps, counted from 1; the first is the finest.
        stride: pixels of the (resized) image from one cell of the finest to the next.
    """

    name: str
    numbers: tuple[int, ...]
    stride: int


class PatchColours(nn.Module):
    """A colour baseline of patches that looks like a backbone.

    Args:
        colour: maps pixels (N, 3, h, w) in 0..255 to features (N, D).
        strides: side of the patches of each map that is returned, in pixels.
    """

    def __init__(self, colour: ColourStatistics | ColourHistogram, strides: Sequence[int]):
        super().__init__()
        self.colour, self.strides = colour, tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in 0..1 to maps (B, D, H // stride, W // stride)."""
        maps = []
        for side in self.strides:
            b, (h, w) = len(images), (n // side for n in images.shape[2:])
            patches = (images[..., :h * side, :w * side] * 255).round()
            patches = patches.reshape(b, 3, h, side, w, side).permute(0, 2, 4, 1, 3, 5)
            found = self.colour(patches.reshape(b * h * w, 3, side, side))
            maps.append(found.view(b, h, w, -1).permute(0, 3, 1, 2))
        return maps


def patch_colours(layers: Sequence[Layers]) -> tuple[dict[str, PatchColours], list[Layers]]:
    """Return the colour baselines by name, and their maps: patches of the grids of ``layers``.

    Their input is not normalised: mean 0 and standard deviation 1, :data:`NO_NORM`.
    """
    strides = list(dict.fromkeys(one.stride for one in layers))
    own = [Layers(one.name, (strides.index(one.stride) + 1,), one.stride) for one in layers]
    return {COLOUR_STATISTICS: PatchColours(ColourStatistics(), strides),
            COLOUR_HISTOGRAM: PatchColours(ColourHistogram(), strides)}, own


class ResizedImages:
    """Images enlarged or shrunk, so that cells of a feature map are finer or coarser.

    Both sides become multiples of ``grain``, so that the cells of every map tile the image:
    its shape may change by up to half of that.

    Args:
        images: the images.
        scale: of both sides.
        grain: what they become multiples of, in pixels.
    """

    def __init__(self, images: Images, scale: float = 1.0, grain: int = GRAIN):
        self.images, self.scale, self.grain = images, scale, grain

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image ``index``, uint8 (3, H, W), and 0: it has no label."""
        image = resized(self.images.read(index), self.scale, self.grain)
        return torch.from_numpy(image).permute(2, 0, 1), 0


def grain_of(layers: Sequence[Layers]) -> int:
    """Return what sides of images are to be multiples of, so that all cells tile the image.

    It is :data:`GRAIN` for every stride that divides it, so that networks of different strides see
    the same images, and the stride itself otherwise: the patch of 14 of some ViTs.
    """
    strides = [one.stride for one in layers]
    return GRAIN if all(GRAIN % stride == 0 for stride in strides) else math.lcm(*strides)


def resized(image: np.ndarray, scale: float, grain: int = GRAIN) -> np.ndarray:
    """Return an image, uint8 (H, W, 3), with both sides scaled to multiples of ``grain``."""
    height, width = (max(1, round(n * scale / grain)) * grain for n in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    shrunk = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height),
                      interpolation=cv2.INTER_AREA if shrunk else cv2.INTER_CUBIC)


def find_layers(backbone: nn.Module, wanted: Sequence[str]) -> list[Layers]:
    """Return which feature maps of a backbone are meant.

    Args:
        backbone: maps images to a list of feature maps, the finest first.
        wanted: 'last2', 'all', or numbers from 1 joined by '+': '3', '3+4'.

    Raises:
        UserError: no such map.
    """
    weight = next(backbone.parameters())
    side = 7 * (getattr(backbone, 'patch_size', None) or GRAIN)
    with every_stage(backbone, stem=False), eval_mode(backbone), torch.no_grad():
        maps = backbone(torch.zeros(1, 3, side, side, device=weight.device))
    found = []
    for name in wanted:
        if name in (LAST_TWO, ALL):
            numbers = tuple(range(1, len(maps) + 1))[-2 if name == LAST_TWO else 0:]
        else:
            parts = name.split('+')
            numbers = tuple(sorted({int(p) for p in parts if p.isdecimal()}))
            if not all(p.isdecimal() for p in parts) or not set(numbers) <= set(
                    range(1, len(maps) + 1)):
                raise UserError(f"'{name}' names no feature maps", where='--dense_layers',
                                expected=f'{LAST_TWO}, {ALL}, or numbers from 1 to {len(maps)} '
                                         "such as '3' or '3+4'")
        if name == LAST_TWO or name == ALL or len(numbers) > 1:
            name = '+'.join(map(str, numbers))
        found.append(Layers(name, numbers, side // max(maps[i - 1].shape[2] for i in numbers)))
    return list(dict.fromkeys(found))


def join(maps: Sequence[Tensor], numbers: Sequence[int]) -> Tensor:
    """Lay maps over each other, those that are coarser interpolated bilinearly.

    Every vector is divided by its length first, so that each map weighs the same in a cosine.

    Args:
        maps: tensors of shape (B, C_i, h_i, w_i).
        numbers: which of them, counted from 1.

    Returns:
        float32 tensor of shape (B, sum of C_i, h, w), of the finest map's h and w.
    """
    chosen = [maps[i - 1].float() for i in numbers]
    if len(chosen) == 1:
        return chosen[0]
    size = max((m.shape[2:] for m in chosen), key=lambda s: s[0] * s[1])
    return torch.cat([F.interpolate(F.normalize(m, dim=1), size, mode='bilinear')
                      for m in chosen], 1)


def patch_features(backbone: nn.Module, images: Images, layers: Sequence[Layers],
                   scale: float, batch_size: int, mean: Sequence[float], std: Sequence[float],
                   amp: str = 'off') -> Iterator[tuple[range, list[Tensor]]]:
    """Yield the features of the patches of all images, one batch of images after another.

    Args:
        backbone: maps images to a list of feature maps.
        images: N of them.
        layers: L choices of feature maps.
        scale: of the images, see :class:`ResizedImages`.
        batch_size: images of one pass, fewer where sizes differ.
        mean, std: normalisation of values in [0, 1].
        amp: precision of the pass.

    Yields:
        The indices of B images, and L float32 tensors of shape (B, D, h, w) on the CPU.

    Raises:
        UserError: features that are not finite.
    """
    start = 0
    with every_stage(backbone, stem=False):
        for maps in feature_maps(backbone, ResizedImages(images, scale, grain_of(layers)),
                                 batch_size, mean, std, amp):
            if not all(bool(m.isfinite().all()) for m in maps):
                raise UserError('features of patches are not finite', where=images.path(start),
                                expected='a backbone without NaN or inf, in a precision that '
                                         'holds its values (fp16 ends at 65,504)')
            stop = start + len(maps[0])
            yield range(start, stop), [join(maps, one.numbers).cpu() for one in layers]
            start = stop
