"""From a batch of the loader to what an algorithm takes: on the device, normalised."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Preprocessor(nn.Module):
    """Move uint8 views to the device and normalise them there.

    Moving uint8 costs a quarter of moving floats, so nothing is converted before.

    Args:
        mean: channel means of values in [0, 1].
        std: channel standard deviations of values in [0, 1].
        channels_last: memory format of the float views.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels_last: bool = True):
        super().__init__()
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32))
        shift = -torch.tensor(mean, dtype=torch.float32) / torch.tensor(std, dtype=torch.float32)
        self.register_buffer('scale', scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer('shift', shift.view(1, 3, 1, 1), persistent=False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def forward(self, batch: dict) -> tuple[list[Tensor], Tensor | None]:
        """Return the views, V float tensors [B, 3, S, S], and view_to_tile [B, V, 2, 3] or None.

        Args:
            batch: ``views`` (V uint8 tensors [B, 3, S, S]) and ``view_to_tile``.
        """
        device = self.scale.device
        views = [self.normalize(view.to(device, non_blocking=True)) for view in batch['views']]
        maps = batch.get('view_to_tile')
        return views, None if maps is None else maps.to(device, non_blocking=True)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise uint8 images [B, 3, H, W] that are on the device already."""
        images = images.to(torch.float32, memory_format=self.memory_format)
        return images.mul_(self.scale).add_(self.shift)
