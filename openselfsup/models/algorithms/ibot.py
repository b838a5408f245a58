"""iBOT: image BERT pre-training with an online tokenizer (arXiv 2111.07832)."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ... import distributed
from ...registry import ALGORITHMS
from ...values import Fraction, NotNegative, Rising, passing_on
from ..losses import masked_patch_loss
from ..masking import MaskedPatches, draw_masks
from ..token_pairs import check_mask_token
from .self_distillation import GLOBAL, Crops, SelfDistillation


@ALGORITHMS.register_module()
class iBOT(SelfDistillation):
    """DINO, and patches that the student does not see predict what the teacher makes of them.

    The patch head is the head of class tokens unless ``patch_head`` is given. The centre of
    patches follows the masked ones of all ranks (DINOv2), not all of them.

    Args:
        backbone: config of a ViT, or a module.
        head: config of a :class:`DINOHead`, or a module.
        patch_weight: factor on the loss of masked patches.
        mask_share: of the global crops that are masked; 1 with ``mask_ratio=(0.1, 0.5)`` is
            iBOT's 0.3 ± 0.2 in every crop.
        mask_ratio: smallest and largest share of a crop's patches that are masked.
        exact_masks: whether masks have their very number of patches (DINOv3), or may lack a few.
        arguments: see :class:`SelfDistillation`.

    Raises:
        UserError: the backbone has no mask token.
    """

    @passing_on(SelfDistillation.__init__)
    def __init__(self, backbone: dict | nn.Module, head: dict | nn.Module,
                 patch_weight: NotNegative = 1.0, mask_share: Fraction = 0.5,
                 mask_ratio: Annotated[tuple[Fraction, Fraction], Rising()] = (0.1, 0.5),
                 exact_masks: bool = False, **arguments: Any):
        super().__init__(backbone, head, **arguments)
        check_mask_token(self.backbone, self)
        self.patch_weight, self.mask_share = patch_weight, mask_share
        self.mask_ratio, self.exact_masks = (mask_ratio[0], mask_ratio[1]), exact_masks

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: V tensors of shape (B, 3, S, S), two global crops first.
            view_to_tile: float32 tensor of shape (B, V, 2, 3), maps from view to tile fractions;
                for terms of cells.
        """
        self.check_crops(views, view_to_tile)
        masks = self.draw_masks(views[0])
        crops = self.look(views, masks)
        targets = self.crop_targets(crops)
        outputs = {'loss_dino': self.crop_loss(crops, targets),
                   'loss_ibot': self.patch_weight * self.patch_loss(crops, masks)}
        return self.finished(outputs, crops, targets, view_to_tile)

    def draw_masks(self, view: Tensor) -> MaskedPatches:
        """Draw which patches of both global crops, views (B, 3, S, S), the student does not see."""
        patch: Any = self.backbone.patch_size
        grid = view.shape[-2] // patch, view.shape[-1] // patch
        return draw_masks(grid, GLOBAL, len(view), distributed.rank(), distributed.world_size(),
                          self.draw_key(0), self.mask_share, self.mask_ratio, self.exact_masks)

    def patch_loss(self, crops: Crops, masks: MaskedPatches) -> Tensor:
        """Return the loss of masked patches (eq. 2); no others pass the heads."""
        name, device = self.patch_head_name, crops.images.device
        index, weight = (torch.from_numpy(part).to(device, non_blocking=True)
                         for part in (masks.index, masks.weight))
        with torch.no_grad():
            hidden = crops.teacher.patches.flatten(0, 1)[index]
            targets = self.soft_targets(self.teacher[name](hidden), self.patch_centre)
        logits = self.student[name](crops.student[0].patches.flatten(0, 1)[index])
        return masked_patch_loss(targets, logits, weight, GLOBAL * crops.rows,
                                 self.student_temperature)
