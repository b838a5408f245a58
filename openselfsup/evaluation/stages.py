"""Features of every stage of a backbone, for the protocol that classifies each of them."""

import torch
from torch import Tensor, nn

from ..models.backbones.resnet import ResNet
from ..training.modes import eval_mode
from .dense.features import every_map

#: Behind the name of a network: that of the features of all its stages.
STAGES_OF = '/stages'
_SIDE = 64  # of the image that tells the widths


class Stages(nn.Module):
    """The globally averaged maps of all stages, behind each other.

    Of a ResNet these are the stem (after its pooling) and layer1 ... layer4, numbered from 0 as in
    OpenSelfSup; of another backbone whatever maps it returns.

    Args:
        backbone: maps images to a list of feature maps.

    Attributes:
        widths: channels of each stage.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        weight = next(backbone.parameters())
        images = torch.zeros(1, 3, _SIDE, _SIDE, device=weight.device)
        with eval_mode(backbone), torch.no_grad():
            self.widths = [stage.shape[1] for stage in self._averages(images)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to one "map" (B, sum of all widths, 1, 1)."""
        return [torch.cat(self._averages(images), 1)[:, :, None, None]]

    def _averages(self, images: Tensor) -> list[Tensor]:
        stem: list[Tensor] = []
        resnets = [part for part in self.backbone.modules() if isinstance(part, ResNet)]
        hooks = [part.relu.register_forward_hook(lambda _, __, out: stem.append(out))
                 for part in resnets]
        try:
            with every_map(self.backbone):
                maps = self.backbone(images)
        finally:
            for hook in hooks:
                hook.remove()
        return [one.float().mean((2, 3)) for one in [*stem, *maps]]
