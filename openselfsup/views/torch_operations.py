"""What the steps of a recipe do to the colours of a batch of views, in PIL's arithmetic.

:mod:`.torch_strong_operations` has the steps of CA2CL's views. Each operation has two halves.
The first turns what a recipe drew, on the CPU, into a few numbers for each view, which are those
of no change where the step does not apply. The second changes views by them, on any device,
without a branch: views hold whole numbers in [0, 255] before and after it, as float32.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .photometric_steps import ColorJitter, GaussianBlur, Grayscale, HEDJitter, Solarize
from .stains import ABSORPTION

Parameters = Mapping[str, Tensor]


class Operation(NamedTuple):
    """One step on views.

    Attributes:
        prepare: maps (parameters of the batch, the step's name and a dot, the step) to
            numbers of shape (B, n) on the CPU.
        apply: maps (views (B, 3, H, W), those numbers on the same device, the step) to views.
    """

    prepare: Callable[[Parameters, str, Any], Tensor]
    apply: Callable[[Tensor, Tensor, Any], Tensor]


def column(numbers: Tensor, which: int) -> Tensor:
    """Return one number of each view as (B, 1, 1, 1)."""
    return numbers[:, which, None, None, None]


def luma(view: Tensor) -> Tensor:
    """Return the grey (B, 1, H, W) of views (B, 3, H, W), ITU-R 601-2, in whole numbers."""
    red, green, blue = view.split(1, 1)
    return (0.299 * red + 0.587 * green + 0.114 * blue + 0.5).floor()


# Colour jitter: four changes in an order of each view's own. Three of them blend with
# black, the mean grey and the grey; all four are made in every place, and one is taken.

def _prepare_jitter(parameters: Parameters, prefix: str, step: ColorJitter) -> Tensor:
    apply = parameters[f'{prefix}apply'][:, None]
    factors = torch.stack([parameters[prefix + name]
                           for name in ('brightness', 'contrast', 'saturation')], 1)
    factors = torch.where(apply, factors, 1.)
    turn = torch.where(apply, parameters[f'{prefix}hue'][:, None], 0.)
    return torch.cat([factors, turn, parameters[f'{prefix}order']], 1)


def _jitter(view: Tensor, numbers: Tensor, step: ColorJitter) -> Tensor:
    turn = column(numbers, 3)
    for place in range(4, 8):
        which = column(numbers, place)
        grey = luma(view)
        mean = (grey.mean((1, 2, 3), keepdim=True) + 0.5).floor()
        ground = torch.where(which == 1, mean, torch.where(which == 2, grey, 0.))
        factor = torch.where(which == 0, column(numbers, 0), torch.where(
            which == 1, column(numbers, 1), torch.where(which == 2, column(numbers, 2), 1.)))
        blended = (ground + factor * (view - ground)).clamp(0, 255).floor()
        view = torch.where((which == 3) & (turn != 0), _turn_hue(view, turn), blended)
    return view


def _turn_hue(view: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by ``turn`` (B, 1, 1, 1) of a circle of 255 steps, in HSV."""
    hue, saturation, value = to_hsv(view)
    return from_hsv((hue + (turn * 255).trunc()).remainder(256), saturation, value)


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


# The others

def _prepare_flag(parameters: Parameters, prefix: str, step: Grayscale) -> Tensor:
    return parameters[f'{prefix}apply'][:, None]


def _grayscale(view: Tensor, numbers: Tensor, step: Grayscale) -> Tensor:
    return torch.where(column(numbers, 0) > 0, luma(view), view)


def _prepare_solarize(parameters: Parameters, prefix: str, step: Solarize) -> Tensor:
    return torch.where(parameters[f'{prefix}apply'], step.threshold, 256)[:, None]


def _solarize(view: Tensor, numbers: Tensor, step: Solarize) -> Tensor:
    return torch.where(view < column(numbers, 0), view, 255 - view)


def _prepare_hed(parameters: Parameters, prefix: str, step: HEDJitter) -> Tensor:
    absorption = torch.from_numpy(ABSORPTION)
    scale, shift = parameters[f'{prefix}scale'].double(), parameters[f'{prefix}shift'].double()
    # Densities of a pixel, as a row: d -> (d · A⁻¹ ∘ scale + shift) · A.
    linear = torch.linalg.inv(absorption) @ (scale[:, :, None] * absorption)  # B 3 3
    return torch.cat([parameters[f'{prefix}apply'][:, None], linear.flatten(1),
                      shift @ absorption], 1)


def _hed(view: Tensor, numbers: Tensor, step: HEDJitter) -> Tensor:
    density = -(view.clamp(min=1) / 255).log10()
    linear = numbers[:, 1:10].view(-1, 3, 3)[..., None, None]  # B 3 3 1 1
    changed = (density[:, :, None] * linear).sum(1) + numbers[:, 10:, None, None]
    image = (255 * torch.pow(10., -changed)).clamp(0, 255).round()
    return torch.where(column(numbers, 0) > 0, image, view)


def blur_kernels(parameters: Parameters, prefix: str, step: GaussianBlur) -> Tensor:
    """Return the kernels of a batch, float32 (B, taps), see :func:`.render_cpu.gaussian_kernel`.

    All are as wide as the recipe's largest sigma asks for; where the step does not apply, the
    kernel is a single 1.
    """
    sigma = torch.where(parameters[f'{prefix}apply'], parameters[f'{prefix}sigma'].double(), 0.)
    variance = sigma * sigma / 3
    r = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    inner = 2 * r + 1
    f = inner * (r * (r + 1) - 3 * variance) / (6 * (variance - (r + 1) ** 2))
    reach = int(((4 * step.sigma[1] ** 2 + 1) ** 0.5 - 1) / 2) + 1
    offset = torch.arange(-reach, reach + 1).abs()
    box = (offset <= r[:, None]).double() + (offset == r[:, None] + 1) * f[:, None]
    box = box / (inner + 2 * f)[:, None]  # B 2·reach+1
    spectrum = torch.fft.rfft(box, n=6 * reach + 1)
    return torch.fft.irfft(spectrum ** 3, n=6 * reach + 1).float()


COLOURS: dict[str, Operation] = {
    'ColorJitter': Operation(_prepare_jitter, _jitter),
    'Grayscale': Operation(_prepare_flag, _grayscale),
    'Solarize': Operation(_prepare_solarize, _solarize),
    'HEDJitter': Operation(_prepare_hed, _hed),
}
