"""Normalisation of images: the one place where values in [0, 255] become a network's input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
