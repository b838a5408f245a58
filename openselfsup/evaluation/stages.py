"""Features of every stage of a backbone, for the protocol that classifies each of them."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..models.backbones.resnet import ResNet
from ..training.modes import eval_mode

#: Behind the name of a network: that of the features of all its stages.
STAGES_OF = '/stages'
_SIDE = 64  # of the image that tells the widths, unless the backbone has patches


class Stages(nn.Module):
    """The globally averaged maps of all stages, behind each other.

    See :func:`every_stage`.

    Args:
        backbone: maps images to a list of feature maps.

    Attributes:
        widths: channels of each stage.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        weight = next(backbone.parameters())
        side = getattr(backbone, 'patch_size', None) or _SIDE
        images = torch.zeros(1, 3, side, side, device=weight.device)
        with eval_mode(backbone), torch.no_grad():
            self.widths = [stage.shape[1] for stage in self._averages(images)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to one "map" (B, sum of all widths, 1, 1)."""
        return [torch.cat(self._averages(images), 1)[:, :, None, None]]

    def _averages(self, images: Tensor) -> list[Tensor]:
        with every_stage(self.backbone):
            return [one.float().mean((2, 3)) for one in self.backbone(images)]


@contextlib.contextmanager
def every_stage(backbone: nn.Module, stem: bool = True) -> Iterator[None]:
    """Let a ResNet, also one inside of another module, return the maps of all its stages.

    They are numbered as in OpenSelfSup: 0 is the stem before its pooling, 1 to 4 are layer1 ...
    layer4. None comes after the last that it returned before. Another backbone returns whatever
    maps it has.

    Args:
        backbone: maps images to a list of feature maps.
        stem: False leaves out stage 0, unless the backbone has no other.
    """
    found = [(part, part.out_indices) for part in backbone.modules() if isinstance(part, ResNet)]
    for part, indices in found:
        first = 0 if stem else min(1, indices[-1])
        part.out_indices = tuple(range(first, indices[-1] + 1))
    try:
        yield
    finally:
        for part, indices in found:
            part.out_indices = indices
