"""DINO: self-distillation with no labels (arXiv 2104.14294)."""

from torch import Tensor

from ...registry import ALGORITHMS
from .self_distillation import SelfDistillation


@ALGORITHMS.register_module()
class DINO(SelfDistillation):
    """The student of every crop predicts what the teacher makes of each other global crop.

    For ViTs the class token, for other backbones the mean of the last map's cells is what is
    compared. The first two views are global crops, which the teacher sees; further ones, which
    may be smaller, only the student. Arguments: see :class:`SelfDistillation`.
    """

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: V tensors of shape (B, 3, S, S), two global crops first.
            view_to_tile: float32 tensor of shape (B, V, 2, 3), maps from view to tile fractions;
                for terms of cells.
        """
        self.check_crops(views, view_to_tile)
        crops = self.look(views)
        targets = self.crop_targets(crops)  # softmax((g_t(x) - c) / τ)
        # mean over pairs x ≠ x' of -Σ_k P_t(x)_k log softmax(g_s(x') / τ_s)_k
        outputs = {'loss_dino': self.crop_loss(crops, targets)}
        return self.finished(outputs, crops, targets, view_to_tile)
