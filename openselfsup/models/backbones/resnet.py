"""ResNet (arXiv 1512.03385) and ResNeXt (arXiv 1611.05431) that return feature maps."""

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import Tensor, nn
from torchvision.models import resnet

from ...checkpoints import LoadReport, load_backbone_weights
from ...errors import UserError
from ...registry import BACKBONES
from ...values import Count, Filled, Range
from ..norm import norm_layer

LAYERS = {18: (resnet.BasicBlock, (2, 2, 2, 2)), 34: (resnet.BasicBlock, (3, 4, 6, 3)),
          50: (resnet.Bottleneck, (3, 4, 6, 3)), 101: (resnet.Bottleneck, (3, 4, 23, 3))}

Depth = Literal[18, 34, 50, 101]
Stages = Annotated[Sequence[Annotated[int, Range(0, 4)]], Filled()]
Frozen = Annotated[int, Range(-1, 4)]


@BACKBONES.register_module()
class ResNet(resnet.ResNet):
    """torchvision's ResNet without pooling and classifier.

    Parameter names are torchvision's, so its weights load as they are. Layers after the last of
    ``out_indices`` do not exist.

    Args:
        depth: 18, 34, 50 or 101.
        norm_cfg: norm layer, see :func:`openselfsup.models.norm.norm_layer`.
        out_indices: which of layer1 ... layer4 to return, as numbers 1 to 4 in rising order;
            their strides are 4, 8, 16, 32. 0 is what the first convolution, its norm and ReLU
            make, at stride 2.
        zero_init_residual: start every residual branch at zero (last norm weight 0).
        groups: groups of the 3x3 convolutions (bottleneck depths only).
        width_per_group: their width per group at 64 base channels.
        in_channels: channels of the images, 2 behind a Sobel layer.
        init_cfg: weights to start from, ``dict(type='Pretrained', checkpoint=PATH)``, of any kind
            that :mod:`openselfsup.checkpoints` reads; with ``allow_partial=True`` also if some
            tensors are missing.
        frozen_stages: the last stage that does not learn, -1 for none: its weights, and those of
            all before it, get no gradient, and their norms keep their statistics.

    Attributes:
        out_channels: channels of each returned feature map.
        load_report: how many tensors ``init_cfg`` filled, None without it.

    Raises:
        UserError: an unknown depth, norm type or index.
    """

    def __init__(self, depth: Depth = 18, norm_cfg: dict | None = None,
                 out_indices: Stages = (4,), zero_init_residual: bool = False,
                 groups: Count = 1, width_per_group: Count = 64,
                 init_cfg: dict | None = None, in_channels: Count = 3,
                 frozen_stages: Frozen = -1):
        if depth not in LAYERS:
            raise UserError(f'no ResNet has depth {depth}', where='backbone.depth',
                            expected='one of ' + ', '.join(map(str, LAYERS)))
        indices = tuple(out_indices)
        if not indices or not set(indices) <= {*range(5)} or list(indices) != sorted(indices):
            raise UserError(f'out_indices is {indices}', where='backbone.out_indices',
                            expected='numbers from 0 to 4 in rising order')
        block, layers = LAYERS[depth]
        super().__init__(block, layers, zero_init_residual=zero_init_residual, groups=groups,
                         width_per_group=width_per_group,
                         norm_layer=norm_layer(norm_cfg or {'type': 'BN'}))
        del self.avgpool, self.fc
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode='fan_out', nonlinearity='relu')
        for index in range(indices[-1] + 1, 5):
            delattr(self, f'layer{index}')
        self.out_indices = indices
        self.out_channels = [64 * 2 ** (index - 1) * block.expansion if index else 64
                             for index in indices]
        self.frozen = [module for index in range(frozen_stages + 1)
                       for module in ([self.conv1, self.bn1] if index == 0
                                      else [getattr(self, f'layer{index}', nn.Identity())])]
        for module in self.frozen:
            module.requires_grad_(False)
        self.load_report = load_initial_weights(self, init_cfg) if init_cfg is not None else None

    def train(self, mode: bool = True) -> 'ResNet':
        """Set the mode of all but the frozen stages, which stay in that of evaluation."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images of shape (B, in_channels, H, W) to feature maps (B, C, h, w), finest first."""
        x = self.bn1(self.conv1(x))
        maps = [self.relu(x)] if self.out_indices[0] == 0 else []
        # Pooled first: the same values and gradients, and a quarter of the pixels to rectify.
        x = self.relu(self.maxpool(x))
        for index in range(1, self.out_indices[-1] + 1):
            x = getattr(self, f'layer{index}')(x)
            if index in self.out_indices:
                maps.append(x)
        return maps


@BACKBONES.register_module()
class ResNeXt(ResNet):
    """ResNeXt-50 32x4d (the default), ResNeXt-101 32x8d (depth 101) or other widths.

    Args:
        depth: 50 or 101.
        groups: groups of the 3x3 convolutions.
        width_per_group: width of each group, 4 at depth 50 and 8 at depth 101 if None.
        norm_cfg, out_indices, zero_init_residual, init_cfg, in_channels, frozen_stages: as for
            :class:`ResNet`.
    """

    def __init__(self, depth: Literal[50, 101] = 50, groups: Count = 32,
                 width_per_group: Count | None = None,
                 norm_cfg: dict | None = None, out_indices: Stages = (4,),
                 zero_init_residual: bool = False, init_cfg: dict | None = None,
                 in_channels: Count = 3, frozen_stages: Frozen = -1):
        widths = {50: 4, 101: 8}
        if depth not in widths:
            raise UserError(f'no ResNeXt has depth {depth}', where='backbone.depth',
                            expected='one of 50, 101')
        super().__init__(depth, norm_cfg, out_indices, zero_init_residual, groups,
                         width_per_group or widths[depth], init_cfg, in_channels, frozen_stages)


def load_initial_weights(backbone: nn.Module, init_cfg: dict) -> LoadReport:
    """Fill a backbone as ``init_cfg`` says.

    Raises:
        UserError: an ``init_cfg`` of another form, or weights that do not fit.
    """
    known = {'type', 'checkpoint', 'allow_partial'}
    if init_cfg.get('type') != 'Pretrained' or {*init_cfg} - known or 'checkpoint' not in init_cfg:
        raise UserError(f'init_cfg is {dict(init_cfg)}', where='model.backbone.init_cfg',
                        expected="dict(type='Pretrained', checkpoint=PATH)")
    return load_backbone_weights(backbone, init_cfg['checkpoint'],
                                 allow_partial=init_cfg.get('allow_partial', False),
                                 advice='model.backbone.init_cfg.allow_partial=True')
