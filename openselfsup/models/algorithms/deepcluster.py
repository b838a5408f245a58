"""DeepCluster: deep clustering for unsupervised learning of visual features (arXiv 1807.05520)."""

from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints import channels_of
from ...errors import UserError
from ...registry import ALGORITHMS, BACKBONES, HEADS
from ...values import Count, NotNegative
from .. import health
from ..heads.classification import accuracy
from ..method import PerTileMethod
from ..parts import built, built_on
from ..pseudo_labels import (
    check_head,
    class_weights,
    restart_head,
    sizes_of,
    weighted_cross_entropy,
)


@ALGORITHMS.register_module()
class DeepCluster(PerTileMethod):
    """Tiles are classified into the clusters of their own features, found anew between epochs.

    The hook :class:`DeepClusterHook` finds them. Until then tile i has the label i mod K.

    Args:
        backbone: config of a backbone, or a module; for edges instead of colours (published) a
            :class:`SobelBackbone`.
        head: config of a :class:`ClsHead` of K classes that takes pooled maps, or a module.
        length: number N of tiles; that of the data set if None.
        reweight: whether a cluster counts less in the loss the more tiles it has; instead of that
            the hook may draw tiles so that all clusters are seen alike.
        reweight_pow: how much less: tiles of a cluster of n count n^-reweight_pow.

    Attributes:
        clusters: their number K.
        labels: int64 buffer of shape (N,), clusters of the tiles; it exists once
            :meth:`set_data` was called or with ``length``.
        loss_weight: buffer of shape (K,), weights of the clusters in the loss.
    """

    needs_hooks = ('DeepClusterHook',)
    keeps = 'labels are kept of'
    labels: Tensor
    loss_weight: Tensor

    def __init__(self, backbone: dict | nn.Module, head: dict | nn.Module,
                 length: Count | None = None, reweight: bool = False,
                 reweight_pow: NotNegative = 0.5):
        super().__init__()
        self.backbone = built(backbone, BACKBONES)
        self.head = built_on(head, HEADS, self.backbone)
        classifier: Any = self.head
        self.clusters: int = classifier.num_classes
        check_head(self.head, channels_of(self.backbone)[-1])
        self.reweight, self.reweight_pow = reweight, reweight_pow
        self.register_buffer('loss_weight', torch.full((self.clusters,), 1 / self.clusters))
        self.expect(length)

    def remember(self, length: int) -> None:
        """Give each of N tiles a label, if they can form the clusters."""
        if length < self.clusters:
            raise UserError(f'{length} tiles cannot form {self.clusters} clusters',
                            where='model.head.num_classes', expected=f'at most {length}')
        self.register_buffer('labels', torch.arange(length) % self.clusters)

    def assign(self, labels: Tensor, generator: torch.Generator) -> None:
        """Train for these clusters from here on, with a new classifier for them.

        Args:
            labels: clusters of all tiles, int64 (N,).
            generator: draws the classifier, the same on all ranks.
        """
        self.labels.copy_(labels)
        if self.reweight:
            self.loss_weight.copy_(class_weights(sizes_of(self.labels, self.clusters),
                                                 self.reweight_pow))
        restart_head(self.head, generator)

    def forward(self, views: list[Tensor], view_to_tile: Tensor | None = None, *,
                index: Tensor) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: one tensor of shape (B, 3, S, S); further ones are not looked at.
            view_to_tile: not used.
            index: places of the tiles in the data set, int64 (B,).
        """
        features = self.backbone(views[0])[-1].mean((2, 3))  # B x C
        scores, labels = self.head([features]), self.labels[index]
        self.features = features.detach()
        return {'loss_cls': weighted_cross_entropy(scores, labels, self.loss_weight),
                'acc': accuracy(scores, labels),
                'feature_std': health.feature_std(self.features)}
