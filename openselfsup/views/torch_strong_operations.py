"""What the steps of CA2CL's views do to a batch, on any device.

The same two halves as in :mod:`.torch_operations`, and the numbers of no change where a step
does not apply. CLAHE is missing: its histograms, one for each region of each view, are counted
by scattered additions, which are slow on a GPU and differ from run to run.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .distortion_steps import ElasticDistortion, GridDistortion
from .strong_steps import (
    Brightness,
    Contrast,
    Cutout,
    GaussianNoise,
    HueSaturationValue,
    MedianBlur,
    MotionBlur,
    OpticalDistortion,
)
from .torch_operations import Operation, Parameters, column, from_hsv, to_hsv


def _where_applied(parameters: Parameters, prefix: str, values: Tensor,
                   otherwise: Tensor | float) -> Tensor:
    """Return drawn values (B, n) of the views that undergo a step, others of the rest."""
    return torch.where(parameters[f'{prefix}apply'][:, None], values, otherwise)


# Colours

def _prepare_amount(parameters: Parameters, prefix: str, step: Brightness | Contrast) -> Tensor:
    return _where_applied(parameters, prefix, parameters[f'{prefix}amount'][:, None], 0.)


def _brightness(view: Tensor, numbers: Tensor, step: Brightness) -> Tensor:
    return (view + 255 * column(numbers, 0)).round().clamp(0, 255)


def _contrast(view: Tensor, numbers: Tensor, step: Contrast) -> Tensor:
    return (view * (1 + column(numbers, 0))).round().clamp(0, 255)


def _prepare_shift(parameters: Parameters, prefix: str, step: HueSaturationValue) -> Tensor:
    return torch.cat([parameters[f'{prefix}apply'][:, None], parameters[f'{prefix}shift']], 1)


def _hue_saturation_value(view: Tensor, numbers: Tensor, step: HueSaturationValue) -> Tensor:
    hue, saturation, value = to_hsv(view)
    hue = (hue + column(numbers, 1) * (256 / 180)).remainder(256).round()
    saturation = (saturation + column(numbers, 2)).round().clamp(0, 255)
    value = (value + column(numbers, 3)).round().clamp(0, 255)
    return torch.where(column(numbers, 0) > 0, from_hsv(hue, saturation, value), view)


# Blurs, noise and holes

def _shifted(view: Tensor, side: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return the side² neighbours of each pixel, row by row, with edges repeated."""
    reach, (height, width) = side // 2, view.shape[2:]
    padded = F.pad(view, (reach,) * 4, mode='replicate').to(dtype)
    return [padded[:, :, y:y + height, x:x + width] for y in range(side) for x in range(side)]


def motion_kernels(parameters: Parameters, prefix: str, step: MotionBlur) -> Tensor:
    """Return the kernels of a batch, float32 (B, limit²), see :func:`.motion_kernel`."""
    length, angle = parameters[f'{prefix}length'], parameters[f'{prefix}angle']
    along = torch.arange(step.limit) - step.limit // 2
    direction = torch.stack([angle.sin(), angle.cos()], 1)  # B 2 (y, x)
    points = direction[:, :, None] * along  # B 2 limit
    share = (1 - (along[:, None] - points[:, :, None]).abs()).clamp(min=0)  # B 2 pixels points
    on_line = along.abs() <= _where_applied(parameters, prefix, length[:, None] // 2, 0)
    kernel = (share[:, 0] * on_line[:, None]) @ share[:, 1].mT  # B y x
    return kernel.flatten(1) / kernel.sum((1, 2))[:, None]


def _motion_blur(view: Tensor, numbers: Tensor, step: MotionBlur) -> Tensor:
    blurred = torch.zeros_like(view)
    for tap, neighbour in enumerate(_shifted(view, step.limit)):
        blurred = blurred + column(numbers, tap) * neighbour
    return blurred.round()


def _prepare_side(parameters: Parameters, prefix: str, step: MedianBlur) -> Tensor:
    return _where_applied(parameters, prefix, parameters[f'{prefix}side'][:, None], 1)


def _median_blur(view: Tensor, numbers: Tensor, step: MedianBlur) -> Tensor:
    blurred = view
    for side in range(3, step.limit + 1, 2):
        median = _median(_shifted(view, side, torch.uint8))  # a quarter of float's memory to move
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


def _prepare_noise(parameters: Parameters, prefix: str, step: GaussianNoise) -> Tensor:
    deviation = _where_applied(parameters, prefix, parameters[f'{prefix}deviation'][:, None], 0.)
    seed = parameters[f'{prefix}seed'][:, None]
    return torch.cat([deviation, seed >> 16, seed & 0xffff], 1)  # float32 holds 24 bits


def _gaussian_noise(view: Tensor, numbers: Tensor, step: GaussianNoise) -> Tensor:
    """Add normal noise that depends on the view's seed and the place only.

    Each value's place in the view, hashed with the seed, is its random number: the same on any
    device and in any batch, but not what OpenCV's generator gives for that seed.
    """
    high, low = column(numbers, 1).long(), column(numbers, 2).long()
    place = torch.arange(view[0].numel(), device=view.device).view(view.shape[1:])
    key = _hash(_hash((high << 16) | low) + 2 * place)
    first, second = ((_hash(key ^ word) + 0.5) / 2 ** 32 for word in (0, 0x9e3779b9))
    normal = (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()  # Box & Muller 1958
    return (view + (column(numbers, 0) * normal).round()).clamp(0, 255)


def _hash(numbers: Tensor) -> Tensor:
    """Mix the 32 low bits of int64 numbers (the finaliser of MurmurHash3, public domain)."""
    numbers = numbers & 0xffffffff
    for shift, factor in ((16, 0x85ebca6b), (13, 0xc2b2ae35)):
        numbers = ((numbers ^ (numbers >> shift)) * factor) & 0xffffffff
    return numbers ^ (numbers >> 16)


def _prepare_cutout(parameters: Parameters, prefix: str, step: Cutout) -> Tensor:
    return _where_applied(parameters, prefix, parameters[f'{prefix}edges'].flatten(1), 0)


def _cutout(view: Tensor, numbers: Tensor, step: Cutout) -> Tensor:
    top, left, bottom, right = (column(numbers, i) for i in range(4))
    y, x = (torch.arange(n, device=view.device) for n in view.shape[2:])
    hole = (y[:, None] >= top) & (y[:, None] < bottom) & (x >= left) & (x < right)
    return torch.where(hole, 0., view)


# Distortions: where on the view, in sides of it, the value of each pixel is taken

def _sample(view: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Take values at fractions (B, H, W) of the view, mirrored beyond its edges."""
    at = torch.stack(torch.broadcast_tensors(x, y), -1) * 2 - 1
    return F.grid_sample(view, at, padding_mode='reflection', align_corners=False).round()


def _centres(pixels: int, device: torch.device) -> Tensor:
    return (torch.arange(pixels, device=device) + 0.5) / pixels


def _prepare_lens(parameters: Parameters, prefix: str, step: OpticalDistortion) -> Tensor:
    return _where_applied(parameters, prefix, parameters[f'{prefix}k'][:, None], 0.)


def _optical_distortion(view: Tensor, numbers: Tensor, step: OpticalDistortion) -> Tensor:
    y, x = (_centres(n, view.device) - 0.5 for n in view.shape[2:])
    y = y[:, None]
    squared = x ** 2 + y ** 2  # H W
    factor = 1 + numbers[:, :, None] * (squared + squared ** 2)  # B H W
    return _sample(view, x * factor + 0.5, y * factor + 0.5)


def _prepare_grid(parameters: Parameters, prefix: str, step: GridDistortion) -> Tensor:
    """Return where the lines between the cells are taken from, (B, 2 * (steps + 1)), y first."""
    knots = F.pad(parameters[f'{prefix}extents'].double().cumsum(-1), (1, 0))  # B 2 steps+1
    even = torch.linspace(0, 1, step.steps + 1, dtype=torch.float64)
    total = knots[..., -1:]
    knots = torch.where(total > 0, knots / total, even)
    return _where_applied(parameters, prefix, knots.flatten(1), even.repeat(2))


def _grid_distortion(view: Tensor, numbers: Tensor, step: GridDistortion) -> Tensor:
    along = []
    for pixels, knots in zip(view.shape[2:], numbers.unflatten(1, (2, -1)).unbind(1)):
        place = _centres(pixels, view.device) * step.steps
        cell = place.long()
        start, end = knots[:, cell], knots[:, cell + 1]
        along.append(start + (place - cell) * (end - start))  # B pixels
    y, x = along
    return _sample(view, x[:, None], y[:, :, None])


def _prepare_elastic(parameters: Parameters, prefix: str, step: ElasticDistortion) -> Tensor:
    return _where_applied(parameters, prefix, parameters[f'{prefix}noise'].flatten(1), 0.)


def _elastic_distortion(view: Tensor, numbers: Tensor, step: ElasticDistortion) -> Tensor:
    sizes = view.shape[2:]
    rows, columns = (step.points(n) for n in sizes)
    by_row, by_column = (_elastic_weights(n, step, view.device) for n in sizes)
    noise = numbers.view(-1, 2, rows, columns)
    dx, dy = (step.gain * by_row @ noise @ by_column.mT).unbind(1)  # B H W each, in pixels
    y, x = (_centres(n, view.device) for n in sizes)
    return _sample(view, x + dx / sizes[1], y[:, None] + dy / sizes[0])


def _elastic_weights(pixels: int, step: ElasticDistortion, device: torch.device) -> Tensor:
    """Return the Gaussian, of peak 1, of each lattice point at each pixel, (pixels, points)."""
    lattice = torch.arange(step.points(pixels), device=device) - step.reach
    z = torch.arange(pixels, device=device)[:, None] / step.sigma - lattice
    return (-z * z / 2).exp()


STRONG: dict[str, Operation] = {
    'Brightness': Operation(_prepare_amount, _brightness),
    'Contrast': Operation(_prepare_amount, _contrast),
    'HueSaturationValue': Operation(_prepare_shift, _hue_saturation_value),
    'MotionBlur': Operation(motion_kernels, _motion_blur),
    'MedianBlur': Operation(_prepare_side, _median_blur),
    'GaussianNoise': Operation(_prepare_noise, _gaussian_noise),
    'Cutout': Operation(_prepare_cutout, _cutout),
    'OpticalDistortion': Operation(_prepare_lens, _optical_distortion),
    'GridDistortion': Operation(_prepare_grid, _grid_distortion),
    'ElasticDistortion': Operation(_prepare_elastic, _elastic_distortion),
}
