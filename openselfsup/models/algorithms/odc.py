"""ODC: online deep clustering for unsupervised representation learning (arXiv 2006.10645)."""

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...registry import ALGORITHMS, BACKBONES, HEADS, NECKS
from ...values import Count, Fraction, NotNegative
from .. import health
from ..heads.classification import accuracy
from ..memories import ODCMemory
from ..method import PerTileMethod
from ..parts import built, built_on, check_channels, projection
from ..pseudo_labels import (
    check_head,
    class_weights,
    restart_head,
    weighted_cross_entropy,
)


@ALGORITHMS.register_module()
class ODC(PerTileMethod):
    """Tiles are classified into clusters that change a little with every step.

    The clusters that it starts from are found by the hook :class:`ODCHook`.

    Args:
        backbone: config of a backbone, or a module.
        neck: config of a neck that returns (B, D), or a module.
        head: config of a :class:`ClsHead` of K classes that takes those vectors, or a module.
        length: number N of tiles in the memory; that of the data set if None.
        memory_momentum: m of the memory, the weight of the **new** feature.
        min_cluster: a class of fewer tiles is dissolved.
        centroids_update_interval: steps between two updates of all centroids.
        deal_with_small_clusters_interval: steps between two looks for small classes, each of which
            makes the host wait for the device once, and longer where there is one.
        reweight: whether a class counts less in the loss the more tiles it has.
        reweight_pow: how much less: tiles of a class of n count n^-reweight_pow.

    Attributes:
        clusters: number K of classes.
        feat_dim: size D of the features.
        memory_bank: the memory; it exists once :meth:`set_data` was called or with ``length``.
        loss_weight: buffer of shape (K,), weights of the classes in the loss.

    Raises:
        UserError: sizes do not fit.
    """

    needs_hooks = ('ODCHook',)
    memory_bank: ODCMemory
    loss_weight: Tensor

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module, head: dict | nn.Module,
                 length: Count | None = None, memory_momentum: Fraction = 0.5,
                 min_cluster: Count = 20, centroids_update_interval: Count = 10,
                 deal_with_small_clusters_interval: Count = 1, reweight: bool = True,
                 reweight_pow: NotNegative = 0.5):
        super().__init__()
        self.backbone = built(backbone, BACKBONES)
        self.neck = built_on(neck, NECKS, self.backbone)
        self.head = built_on(head, HEADS, self.neck, vectors=True)
        classifier: Any = self.head
        self.feat_dim = size_of_vectors(self.neck)
        self.clusters: int = classifier.num_classes
        check_channels(self.backbone, self.neck)
        check_head(self.head, self.feat_dim)
        self.memory_momentum, self.min_cluster = memory_momentum, min_cluster
        self.centroids_update_interval = centroids_update_interval
        self.deal_with_small_clusters_interval = deal_with_small_clusters_interval
        self.reweight, self.reweight_pow = reweight, reweight_pow
        self.register_buffer('loss_weight', torch.full((self.clusters,), 1 / self.clusters))
        self.expect(length)

    def remember(self, length: int) -> None:
        """Give each of N tiles a feature and a label, if they can form the clusters."""
        if length < max(self.min_cluster, 2) * self.clusters:
            raise UserError(f'{length} tiles cannot form {self.clusters} clusters of at least '
                            f'{self.min_cluster}', where='model.head.num_classes',
                            expected=f'at most {length // max(self.min_cluster, 2)}, or a smaller '
                                     'model.min_cluster')
        self.memory_bank = ODCMemory(length, self.feat_dim, self.clusters,
                                     self.memory_momentum, self.min_cluster)

    def start(self, features: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Start from clusters of the whole data set, with a new classifier for them.

        Args:
            features: what :meth:`extract` made of all tiles, (N, D).
            labels: their clusters, int64 (N,).
            generator: draws the classifier, the same on all ranks.
        """
        self.memory_bank.start(features, labels)
        self._weigh()
        restart_head(self.head, generator)

    def extract(self, images: Tensor) -> Tensor:
        """Return the features (B, D) of images (B, 3, S, S), not normalised."""
        return projection(self.neck, self.backbone(images))

    def forward(self, views: list[Tensor], view_to_tile: Tensor | None = None, *,
                index: Tensor) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: one tensor of shape (B, 3, S, S); further ones are not looked at.
            view_to_tile: not used.
            index: places of the tiles in the data set, int64 (B,).
        """
        features = self.extract(views[0])
        scores, memory = self.head([features]), self.memory_bank
        labels = memory.label_bank[index]  # as they are before this step
        loss = weighted_cross_entropy(scores, labels, self.loss_weight)
        self.features = features.detach()
        sizes = memory.sizes
        outputs = {'loss_cls': loss, 'acc': accuracy(scores, labels),
                   'feature_std': health.feature_std(self.features),
                   'cluster_smallest': sizes.amin() / len(memory.label_bank),
                   'cluster_largest': sizes.amax() / len(memory.label_bank),
                   'clusters_small': (sizes < self.min_cluster).sum().float(),
                   'splits': memory.splits[0].float()}
        if self.training:
            outputs['change_ratio'] = memory.update_samples(index, self.features)
        return outputs

    def end_step(self) -> None:
        """Look after the clusters: centroids, small classes, weights; the host may wait."""
        step = self.progress.step + 1
        if step % self.centroids_update_interval == 0:
            self.memory_bank.update_centroids()
        if step % self.deal_with_small_clusters_interval == 0:
            self.memory_bank.deal_with_small_clusters()
            self._weigh()

    def _weigh(self) -> None:
        if self.reweight:
            self.loss_weight.copy_(class_weights(self.memory_bank.sizes, self.reweight_pow))


def size_of_vectors(neck: nn.Module) -> int:
    """Return the size D of a neck's vectors; raise a UserError if it does not say it."""
    size = getattr(neck, 'out_channels', None)
    if not isinstance(size, int):
        raise UserError(f'{type(neck).__name__} does not say the size of its vectors',
                        where='model.neck',
                        expected="a neck with out_channels, such as dict(type='NonLinearNeckV0')")
    return size
