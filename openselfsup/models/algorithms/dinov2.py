"""DINOv2: learning robust visual features without supervision (arXiv 2304.07193)."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ... import distributed
from ...errors import UserError
from ...registry import ALGORITHMS
from ...values import Count, NotNegative, Positive, passing_on
from ..losses import kernel_density, koleo
from ..targets import Targets
from .ibot import iBOT
from .self_distillation import Crops

Spread = Literal['koleo', 'kde']


@ALGORITHMS.register_module()
class DINOv2(iBOT):
    """DINO, iBOT, and a term that keeps class tokens of different tiles apart.

    Args:
        backbone: config of a ViT, or a module.
        head: config of a :class:`DINOHead`, or a module, for class tokens and patches (the short
            recipe), or with ``patch_head`` for class tokens alone (the long one).
        targets: 'sinkhorn' or 'centering'.
        spread: 'koleo' (DINOv2), or 'kde', a kernel density (Virchow2, Midnight), which equal
            tiles do not disturb.
        spread_weight: factor on it; the terms of both global crops are summed.
        concentration: κ of the kernel density.
        neighbours: how many of the nearest KoLeo keeps away.
        arguments: see :class:`iBOT` and :class:`SelfDistillation`.

    Raises:
        UserError: a setting is impossible.
    """

    @passing_on(iBOT.__init__)
    def __init__(self, backbone: dict | nn.Module, head: dict | nn.Module,
                 targets: Targets = 'sinkhorn', spread: Spread = 'koleo',
                 spread_weight: NotNegative = 0.1, concentration: Positive = 5.0,
                 neighbours: Count = 1, **arguments: Any):
        super().__init__(backbone, head, targets=targets, **arguments)
        if spread not in get_args(Spread):
            raise UserError(f"spread is '{spread}'", where='model.spread',
                            expected='one of ' + ', '.join(get_args(Spread)))
        self.spread, self.spread_weight = spread, spread_weight
        self.concentration, self.neighbours = concentration, neighbours

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors; see :meth:`iBOT.forward`."""
        self.check_crops(views, view_to_tile)
        masks = self.draw_masks(views[0])
        crops = self.look(views, masks)
        targets = self.crop_targets(crops)
        outputs = {'loss_dino': self.crop_loss(crops, targets),
                   'loss_ibot': self.patch_weight * self.patch_loss(crops, masks),
                   f'loss_{self.spread}': self.spread_weight * self.spread_loss(crops)}
        return self.finished(outputs, crops, targets, view_to_tile)

    def spread_loss(self, crops: Crops) -> Tensor:
        """Return the sum over both global crops of what spreads their class tokens.

        They are taken before the head, and compared with those of all ranks.
        """
        first = distributed.rank() * crops.rows
        losses = []
        for x in crops.student[0].cls.unflatten(0, (-1, crops.rows)):
            everyone = distributed.all_gather_with_grad(x)
            losses.append(koleo(x, everyone, first, self.neighbours) if self.spread == 'koleo'
                          else kernel_density(x, everyone, first, self.concentration))
        return torch.stack(losses).sum()
