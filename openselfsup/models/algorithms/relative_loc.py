"""RelativeLoc: predict where a patch lies beside another (context prediction, arXiv 1505.05192)."""

from typing import Any

import torch
from torch import Tensor, nn

from ... import distributed
from ...checkpoints import channels_of
from ...errors import UserError
from ...registry import ALGORITHMS, BACKBONES, HEADS, NECKS
from ...values import Whole
from .. import health
from ..method import BaseMethod
from ..parts import built, built_on, check_channels, check_classes, init_linear

SIDE = 3  # of the grid
CENTRE = SIDE * SIDE // 2
PLACES = SIDE * SIDE - 1


@ALGORITHMS.register_module()
class RelativeLoc(BaseMethod):
    """From a patch and the middle one, tell on which of eight sides of the middle it lies.

    An image is cut into 3 x 3 cells, and from each a patch that is ``gap`` pixels smaller, at a
    place drawn anew each time: edges that continue from one patch into the next would give the
    answer away. 0.125 is the accuracy of guessing.

    Args:
        backbone: config of a backbone, or a module.
        neck: config of a :class:`RelativeLocNeck`, or a module that takes the maps of pairs.
        head: config of a :class:`ClsHead` with eight classes, or a module like it.
        gap: by how many pixels a patch is smaller than its cell, in both directions.

    Attributes:
        features: the pooled last map of the middle patches, shape (B, C), detached.
    """

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module,
                 head: dict | nn.Module, gap: Whole = 21):
        super().__init__()
        self.backbone = built(backbone, BACKBONES)
        self.neck = built_on(neck, NECKS, self.backbone)
        # Its loss is a method of its own.
        self.head: Any = built_on(head, HEADS, self.neck, vectors=True)
        check_channels(self.backbone, self.neck)
        check_takes_pairs(self.neck, channels_of(self.backbone)[-1])
        check_classes(self.head, PLACES)
        init_linear(self.head, 'normal', std=0.005)
        self.gap = gap

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: one tensor of shape (B, 3, H, W), of which patches are cut; further ones are
                not looked at.
            view_to_tile: not used.
        """
        return self.locate(cut_patches(views[0], self.draw_jitter(views[0]), self.gap))

    def draw_jitter(self, images: Tensor) -> Tensor:
        """Return how far each patch lies from its cell's top left, int64 (B, 9, 2), 0 to gap.

        They follow from rank 0's default generator on the CPU: whoever seeds that one before each
        step makes an interrupted run repeatable. In evaluation patches lie in the middle.
        """
        batch, device = len(images), images.device
        if not self.training:
            return torch.full((batch, SIDE * SIDE, 2), self.gap // 2, device=device)
        world, rank = distributed.world_size(), distributed.rank()
        jitter = torch.randint(self.gap + 1, (world * batch, SIDE * SIDE, 2))
        jitter = distributed.broadcast(jitter.to(device, non_blocking=True))
        return jitter[rank * batch:(rank + 1) * batch]

    def locate(self, patches: Tensor) -> dict[str, Tensor]:
        """Return losses and monitors for patches (B, 9, 3, h, w) in raster order."""
        batch = len(patches)
        around = torch.cat([patches[:, :CENTRE], patches[:, CENTRE + 1:]], 1).flatten(0, 1)
        # The middle is encoded once for its eight pairs: batch statistics are the same.
        centre, outer = self.backbone(patches[:, CENTRE])[-1], self.backbone(around)[-1]
        middle = centre[:, None].expand(-1, PLACES, -1, -1, -1).flatten(0, 1)
        pairs = torch.cat([outer, middle], 1)  # 8B x 2C x h x w
        labels = torch.arange(PLACES, device=patches.device).repeat(batch)
        outputs = self.head.loss(self.head([self.neck([pairs])]), labels)
        self.features = centre.mean((2, 3)).detach()
        return {**outputs, 'feature_std': health.feature_std(self.features)}


def check_takes_pairs(neck: nn.Module, channels: int) -> None:
    """Raise a UserError if a neck does not take two maps of so many channels side by side."""
    first = next((layer for layer in neck.modules() if isinstance(layer, nn.Linear)), None)
    if first is not None and first.in_features != 2 * channels:
        raise UserError(f'{type(neck).__name__} takes {first.in_features} channels, two patches '
                        f'side by side give {2 * channels}', where='model.neck',
                        expected="dict(type='RelativeLocNeck', ...)")


def cut_patches(images: Tensor, jitter: Tensor, gap: int) -> Tensor:
    """Cut a patch out of each cell of a 3 x 3 grid over images, square or not.

    Cells are ⌊H/3⌋ x ⌊W/3⌋ pixels, patches ``gap`` less in both directions.

    Args:
        images: tensor of shape (B, C, H, W).
        jitter: (down, right) from each cell's top left to its patch's, int64 (B, 9, 2), 0 to gap.
        gap: pixels.

    Returns:
        Tensor of shape (B, 9, C, h, w), row by row.

    Raises:
        UserError: cells are not larger than ``gap``.
    """
    down, right = images.shape[-2] // SIDE, images.shape[-1] // SIDE
    height, width = down - gap, right - gap
    if min(height, width) < 1:
        raise UserError(f'cells of a third of {images.shape[-2]} x {images.shape[-1]} px leave '
                        f'no patch {gap} px smaller', where='model.gap',
                        expected='a smaller gap, or larger views')
    place, image, y, x = (torch.arange(count, device=images.device)
                          for count in (SIDE * SIDE, len(images), height, width))
    rows = (place // SIDE * down + jitter[..., 0])[..., None] + y  # B x 9 x h
    columns = (place % SIDE * right + jitter[..., 1])[..., None] + x  # B x 9 x w
    image = image[:, None, None, None]
    return images.permute(0, 2, 3, 1)[image, rows[..., None], columns[:, :, None]].permute(
        0, 1, 4, 2, 3)  # B x 9 x h x w x C, channels first
