"""RotationPred: predict by how many quarter turns an image was turned (arXiv 1803.07728)."""

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...registry import ALGORITHMS, BACKBONES, HEADS
from .. import health
from ..method import BaseMethod
from ..parts import built, built_on, check_classes, init_linear

TURNS = 4


@ALGORITHMS.register_module()
class RotationPred(BaseMethod):
    """A classifier tells the four quarter turns of each image apart, all four in the batch.

    Tissue has no upright: ``acc`` says whether there is anything to learn from. 0.25 is guessing.

    Args:
        backbone: config of a backbone, or a module.
        head: config of a :class:`ClsHead` with four classes, or a module like it.

    Attributes:
        features: the pooled last map of the unturned images, shape (B, C), detached.
    """

    def __init__(self, backbone: dict | nn.Module, head: dict | nn.Module):
        super().__init__()
        self.backbone = built(backbone, BACKBONES)
        # Its loss is a method of its own.
        self.head: Any = built_on(head, HEADS, self.backbone)
        check_classes(self.head, TURNS)
        init_linear(self.head, 'kaiming')

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: one tensor of square images, shape (B, 3, S, S), not turned; further ones are
                not looked at.
            view_to_tile: not used.
        """
        images, labels = all_turns(views[0])
        maps = self.backbone(images)
        outputs = self.head.loss(self.head(maps), labels)
        self.features = maps[-1][::TURNS].mean((2, 3)).detach()
        return {**outputs, 'feature_std': health.feature_std(self.features)}


def all_turns(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (B, C, S, S) in all turns, (4B, C, S, S), and the turns, int64 (4B,).

    Label k is k quarter turns counter-clockwise; the four of an image follow each other.

    Raises:
        UserError: images are not square.
    """
    if images.shape[-2] != images.shape[-1]:
        raise UserError(f'images of {images.shape[-2]} x {images.shape[-1]} px change their shape '
                        'when they are turned', where='dataset.recipe.size',
                        expected='square views')
    turned = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(TURNS)], 1)
    return turned.flatten(0, 1), torch.arange(TURNS, device=images.device).repeat(len(images))
