"""Normalisation of images: what a backbone wants, and how values in [0, 255] become its input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import backbone_record, description_of, load
from ..errors import UserError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Wanted:
    """The normalisation that a backbone wants of its images; ``str()`` says it in a sentence.

    Attributes:
        mean, std: of three channels, for values in [0, 1].
        source: what says so.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    source: str = "ImageNet's, as nothing says another"

    def __str__(self) -> str:
        mean, std = (', '.join(f'{x:g}' for x in values) for values in (self.mean, self.std))
        return f'Images are normalised with mean {mean} and std {std}: {self.source}.'

    def differs_from(self, mean: Sequence[float], std: Sequence[float]) -> bool:
        """Return whether something says that a backbone wants another normalisation than this."""
        return self.source != Wanted.source and not torch.allclose(
            torch.tensor([self.mean, self.std]), torch.tensor([[*mean], [*std]]), atol=1e-3)


def normalization_of(path: str | Path, checkpoint: Mapping[str, Any] | None = None) -> Wanted:
    """Return the normalisation that the backbone in a file wants.

    That is what the run was trained with, of our checkpoints; else what lies beside the weights
    says, in a folder as hubs have it; else ImageNet's.

    Args:
        path: of the weights, as for :func:`openselfsup.load_backbone`.
        checkpoint: what the file holds, if it has been read.

    Raises:
        UserError: the file cannot be read, or what it or its folder says is damaged.
    """
    record = backbone_record(load(path) if checkpoint is None else checkpoint, str(path))
    if record is not None and record.unreadable:
        raise UserError(record.unreadable, where=str(path))
    if record is not None:
        return Wanted(record.normalize['mean'], record.normalize['std'],
                      'as in its training') if record.normalize else Wanted()
    said = description_of(path)
    return Wanted(said.normalize['mean'], said.normalize['std'],
                  f'{said.source} says so') if said.normalize else Wanted()


def wants_another(path: str | Path, mean: Sequence[float], std: Sequence[float]) -> str:
    """Say that weights want another normalisation than they get, '' if they do not say so.

    Args:
        path: of the weights.
        mean, std: what images are normalised with.

    Raises:
        UserError: as :func:`normalization_of`.
    """
    wanted = normalization_of(path)
    if not wanted.differs_from(mean, std):
        return ''
    return (f'{path} wants images normalised otherwise than the config says: normalize=dict(mean='
            f'{list(wanted.mean)}, std={list(wanted.std)}), {wanted.source}')


class Normalize(nn.Module):
    """(x / 255 - mean) / std, as one multiplication and one addition.

    Args:
        mean: channel means of values in [0, 1].
        std: channel standard deviations of values in [0, 1].
        channels_last: memory format of batches.

    Attributes:
        scale, shift: float32 buffers of shape (C, 1, 1); the result is ``shift + scale * x``.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels_last: bool = True):
        super().__init__()
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32))
        shift = -torch.tensor(mean, dtype=torch.float32) / torch.tensor(std, dtype=torch.float32)
        self.register_buffer('scale', scale.view(-1, 1, 1), persistent=False)
        self.register_buffer('shift', shift.view(-1, 1, 1), persistent=False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images of values in [0, 255].

        Args:
            images: batch (B, C, H, W) or one image (C, H, W), of any type. It is moved to the
                device of the buffers as it is, since bytes move four times as fast as floats.

        Returns:
            float32 tensor of the same shape.
        """
        layout = self.memory_format if images.ndim == 4 else torch.preserve_format
        images = images.to(self.scale.device, non_blocking=True)
        return torch.addcmul(self.shift, images.to(torch.float32, memory_format=layout),
                             self.scale)
