"""What the renderings of several steps share: resizing, grey, HSV, neighbours, seeded noise."""

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .base import Interpolation, Scope

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2
TRUNCATE = -0.5  # PIL cuts to whole numbers where OpenCV rounds


# OpenCV

def resize(image: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None,
           interpolation: Interpolation = 'bilinear') -> np.ndarray:
    """Resize to RGB, with antialiasing where the image shrinks, as PIL does."""
    if out is None:
        out = np.empty((*size, 3), np.uint8)
    # OpenCV's bicubic filter is another one (a = -0.75 in place of PIL's -0.5).
    grows = (interpolation == 'bilinear' and image.shape[0] <= size[0]
             and image.shape[1] <= size[1])
    if image.ndim == 2:
        image = cv2.resize(image, size[::-1]) if grows else image
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[:2] == size:
        np.copyto(out, image)
    elif grows:
        cv2.resize(image, size[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
    else:
        # OpenCV has no such resize; torch's, for bytes, is PIL's algorithm with SIMD.
        if not image.flags.writeable:
            image = image.copy()
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        small = F.interpolate(pixels, size=size, mode=interpolation, antialias=True)
        np.copyto(out, small[0].permute(1, 2, 0).numpy())
    return out


# PIL

def on_floats(change: Callable[[Any, np.ndarray, Scope], np.ndarray]) -> Callable:
    """Turn a step's method on values 0..255, float64 (H, W, 3), into one on PIL images."""
    def render_pil(step: Any, view: Image.Image, drawn: Scope) -> Image.Image:
        changed = change(step, np.asarray(view).astype(np.float64), drawn)
        return Image.fromarray(changed.round().clip(0, 255).astype(np.uint8))
    return render_pil


# Torch

def matrix_dtype(device: torch.device) -> torch.dtype:
    """Return what bytes are multiplied in: 11 bits hold them and weights good to 1/2000."""
    return torch.float16 if device.type == 'cuda' else torch.float32


def column(numbers: Tensor, which: int) -> Tensor:
    """Return one number of each view as (B, 1, 1, 1)."""
    return numbers[:, which, None, None, None]


def luma(view: Tensor) -> Tensor:
    """Return the grey (B, 1, H, W) of views (B, 3, H, W), ITU-R 601-2, in whole numbers."""
    red, green, blue = view.split(1, 1)
    return (0.299 * red + 0.587 * green + 0.114 * blue + 0.5).floor()


def to_hsv(view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue, saturation and value (B, 1, H, W), whole numbers in [0, 255] as PIL's."""
    red, green, blue = view.split(1, 1)
    value, least = view.amax(1, keepdim=True), view.amin(1, keepdim=True)
    chroma = value - least
    some = chroma.clamp(min=1)  # where chroma is 0, so is the saturation
    sector = torch.where(red == value, (green - blue) / some, torch.where(
        green == value, 2 + (blue - red) / some, 4 + (red - green) / some))
    hue = ((sector / 6 + 1).remainder(1) * 255).floor()
    return hue, (chroma / value.clamp(min=1) * 255).floor(), value


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return views (B, 3, H, W) of whole numbers; see :func:`to_hsv`."""
    # A channel is the value less chroma times a trapezoid of the hue, shifted for each.
    shift = torch.tensor([5., 3., 1.], device=hue.device)[:, None, None]
    along = (hue * (6 / 255) + shift).remainder(6)
    trapezoid = torch.minimum(along, 4 - along).clamp(0, 1)
    return (value * (1 - saturation / 255 * trapezoid)).round()


def neighbours(view: Tensor, side: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return the side² neighbours of each pixel, row by row, with edges repeated."""
    reach, (height, width) = side // 2, view.shape[2:]
    padded = F.pad(view, (reach,) * 4, mode='replicate').to(dtype)
    return [padded[:, :, y:y + height, x:x + width] for y in range(side) for x in range(side)]


# Noise of a seed: a number's place is hashed with the seed, the same on any device, in any batch

def halves(seed: Tensor) -> Tensor:
    """Return seeds (B,) below 2^32 as (B, 2) floats: float32 holds 24 bits."""
    return torch.stack([seed >> 16, seed & 0xffff], 1).float()


def normal(halves: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return normal numbers, float32 (B, *shape), of seeds that :func:`halves` took apart."""
    high, low = (half.long().view(-1, *[1] * len(shape)) for half in halves.unbind(1))
    place = torch.arange(math.prod(shape), device=halves.device).view(shape)
    key = _hash(_hash((high << 16) | low) + 2 * place)
    first, second = ((_hash(key ^ word) + 0.5) / 2 ** 32 for word in (0, 0x9e3779b9))
    return (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()  # Box & Muller 1958


def _hash(numbers: Tensor) -> Tensor:
    """Mix the 32 low bits of int64 numbers (the finaliser of MurmurHash3, public domain)."""
    numbers = numbers & 0xffffffff
    for shift, factor in ((16, 0x85ebca6b), (13, 0xc2b2ae35)):
        numbers = ((numbers ^ (numbers >> shift)) * factor) & 0xffffffff
    return numbers ^ (numbers >> 16)
