"""What every result is compared with: colour alone, and backbones that learnt nothing here.

Three mean colours alone exceed 50 % accuracy on NCT-CRC-HE and colour histograms 82 %
(Ignatov & Malivenko 2024, arXiv:2409.11546): a number without these rows beside it says little.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.parts import features_of
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD

COLOUR_STATISTICS, COLOUR_HISTOGRAM = 'colour mean / sd', 'colour histogram'
RANDOM_INIT, IMAGENET_INIT = 'random init', 'ImageNet init'
HISTOGRAM_BINS = 32


class ColourStatistics(nn.Module):
    """Mean and standard deviation of the three channels: six numbers a tile."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) in 0..255 to features (B, 6)."""
        flat = pixels.flatten(2)
        return torch.cat([flat.mean(2), flat.std(2)], 1)


class ColourHistogram(nn.Module):
    """Histogram of each channel in 32 bins, square roots of the shares (Hellinger)."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) in 0..255 to features (B, 96)."""
        flat = pixels.flatten(2)  # B x 3 x P
        rows = flat.shape[0] * flat.shape[1]
        bins = (flat * (HISTOGRAM_BINS / 256)).long().clamp_(0, HISTOGRAM_BINS - 1)
        offset = torch.arange(rows, device=flat.device).view(*flat.shape[:2], 1) * HISTOGRAM_BINS
        counts = (bins + offset).flatten().bincount(minlength=rows * HISTOGRAM_BINS)
        return (counts.view(len(flat), -1) / flat.shape[2]).sqrt()


class Renormalised(nn.Module):
    """A backbone that was trained with another normalisation than its input comes with.

    Args:
        backbone: maps images to a list of feature maps.
        given: mean and std of the input.
        wanted: mean and std that the backbone was trained with.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, backbone: nn.Module, given: tuple[Sequence[float], Sequence[float]],
                 wanted: tuple[Sequence[float], Sequence[float]]):
        super().__init__()
        self.backbone = backbone
        (mean, std), (own_mean, own_std) = (
            [torch.tensor(values).view(3, 1, 1) for values in pair] for pair in (given, wanted))
        self.register_buffer('factor', std / own_std)
        self.register_buffer('shift', (mean - own_mean) / own_std)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in the given normalisation to feature maps."""
        return self.backbone(images * self.factor + self.shift)

    def image_features(self, images: Tensor) -> Tensor:
        """Map such images to what the backbone has for each, see :func:`.parts.features_of`."""
        return features_of(self.backbone, images * self.factor + self.shift)

    @property
    def patch_size(self) -> int | None:
        """Side of the backbone's patches in pixels, if it has any."""
        return getattr(self.backbone, 'patch_size', None)


class FeatureBank(nn.Module):
    """Several feature extractors behind one forward pass, so that a tile is decoded once.

    It looks like a backbone to :func:`~openselfsup.training.features.extract_features`.

    Args:
        backbones: networks by name; each maps normalised images to a list of feature maps.
        mean: mean of each channel that the images were normalised with.
        std: standard deviation of each channel.
        colours: add the two colour baselines.

    Attributes:
        widths: number of features by name, in the order of the concatenation; known after the
            first forward pass.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbones: dict[str, nn.Module], mean: Sequence[float] = IMAGENET_MEAN,
                 std: Sequence[float] = IMAGENET_STD, colours: bool = True):
        super().__init__()
        self.names = list(backbones)
        self.backbones = nn.ModuleList(backbones.values())
        self.colours = {COLOUR_STATISTICS: ColourStatistics(),
                        COLOUR_HISTOGRAM: ColourHistogram()} if colours else {}
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1) * 255)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1) * 255)
        self.widths: dict[str, int] = {}

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to one "map" (B, sum of all widths, 1, 1)."""
        found = {name: features_of(backbone, images)
                 for name, backbone in zip(self.names, self.backbones)}
        pixels = (images * self.std + self.mean).round_() if self.colours else images
        found |= {name: colour(pixels) for name, colour in self.colours.items()}
        self.widths = {name: features.shape[1] for name, features in found.items()}
        return [torch.cat(list(found.values()), 1)[:, :, None, None]]

    def split(self, features: Tensor) -> dict[str, Tensor]:
        """Split features (N, sum of all widths) by name."""
        return dict(zip(self.widths, features.split(list(self.widths.values()), 1)))


def imagenet_weights(model_name: str) -> Path | None:
    """Return ImageNet weights that torchvision has cached; nothing is downloaded."""
    cached = Path(torch.hub.get_dir()) / 'checkpoints'
    return next(iter(sorted(cached.glob(f'{model_name}-*.pth'))), None)
