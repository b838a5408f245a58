"""Classification: a backbone and a classifier learn from labels, or the classifier alone."""

from typing import Any

from torch import Tensor, nn

from ...registry import ALGORITHMS, BACKBONES, HEADS
from .. import health
from ..method import BaseMethod
from ..parts import built, built_on, check_classes


@ALGORITHMS.register_module()
class Classification(BaseMethod):
    """Cross entropy against the tiles' labels.

    With ``frozen_stages=4`` of a backbone that starts from ``pretrained`` and a
    :class:`MultiClsHead` it is the linear evaluation of every stage.

    Args:
        backbone: config of a backbone, or a module.
        head: config of a :class:`ClsHead` or :class:`MultiClsHead`, or a module with ``forward``
            from maps to scores and ``loss`` from scores and labels to losses and monitors.

    Attributes:
        features: the pooled last map of the last forward, shape (B, C), detached.
    """

    batch_keys = ('label',)

    def __init__(self, backbone: dict | nn.Module, head: dict | nn.Module):
        super().__init__()
        self.backbone = built(backbone, BACKBONES)
        # Its loss is a method of its own.
        self.head: Any = built_on(head, HEADS, self.backbone)

    def set_data(self, length: int, classes: list[str] | None) -> None:
        """Refuse tiles of more classes than the head has.

        Raises:
            UserError: there are more.
        """
        if classes is not None:
            check_classes(self.head, len(classes))

    def forward(self, views: list[Tensor], view_to_tile: Tensor | None = None, *,
                label: Tensor) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: one tensor of shape (B, 3, S, S); further ones are not looked at.
            view_to_tile: not used.
            label: classes of the tiles, int64 (B,).
        """
        maps = self.backbone(views[0])
        outputs = self.head.loss(self.head(maps), label)
        self.features = maps[-1].mean((2, 3)).detach()
        return {**outputs, 'feature_std': health.feature_std(self.features)}
