"""The cluster-contrast head of CA2CL."""

from typing import Annotated

import torch
from torch import Tensor, nn

from ... import distributed
from ...errors import UserError, nearest
from ...registry import HEADS
from ...values import Count, NotNegative, Positive, Range
from .. import health
from ..losses.cluster_contrast import (
    cluster_contrast,
    joint_assignment,
    negative_mutual_information,
)
from ..memories.kmeans import EMPTY, INIT, Clusters, Empty, Init, batch_kmeans
from ..parts import at_least_float32


@HEADS.register_module()
class ClusterHead(nn.Module):
    """Cluster both views' group features anew in each batch; each predicts the other's clusters.

    Cluster-aware adversarial contrastive learning (JBHI 2025). The defaults are the published
    behaviour.

    Args:
        clusters: number K of clusters.
        iters: iterations of k-means.
        temperature: T of the cross entropy.
        weight: λ, factor on everything that this head returns as a loss.
        detach_centroids: whether gradients stop at the centroids.
        empty: 'zero' leaves an empty cluster in the softmax as the vector 0 (published), 'mask'
            takes it out, 'resplit' gives it the rows that fit worst and takes out what is empty
            all the same.
        init: 'first' starts at the first K tiles of the batch (published), or 'kmeans++'.
        mutual_information: whether to add the negative mutual information of both views'
            assignments.

    Raises:
        UserError: a setting is impossible.
    """

    def __init__(self, clusters: Annotated[int, Range(2)] = 10, iters: Count = 10,
                 temperature: Positive = 0.2, weight: NotNegative = 0.1,
                 detach_centroids: bool = False, empty: Empty = 'zero',
                 init: Init = 'first', mutual_information: bool = False):
        super().__init__()
        if clusters < 2 or iters < 1:
            raise UserError(f'{clusters} clusters in {iters} iterations', where='model.cluster',
                            expected='at least 2 clusters and 1 iteration')
        for name, value, choices in (('empty', empty, EMPTY), ('init', init, INIT)):
            if value not in choices:
                raise UserError(f"{name} is '{value}'", where=f'model.cluster.{name}',
                                expected='one of ' + ', '.join(choices),
                                nearest=nearest(str(value), choices))
        self.clusters, self.iters, self.temperature, self.weight = (clusters, iters, temperature,
                                                                    weight)
        self.detach_centroids, self.empty, self.init = detach_centroids, empty, init
        self.mutual_information = mutual_information

    def find_clusters(self, group: Tensor) -> Clusters:
        """Cluster group features (B, D) over all ranks.

        Raises:
            UserError: the global batch has fewer tiles than clusters.
        """
        rows = len(group) * distributed.world_size()
        if rows < self.clusters:
            raise UserError(f'a batch of {rows} tiles cannot form {self.clusters} clusters',
                            where='model.cluster.clusters',
                            expected='a larger global_batch_size, fewer clusters, or '
                                     'drop_last=True where the last batch is short')
        with torch.autocast(group.device.type, enabled=False):
            group = at_least_float32(group)
            found = batch_kmeans(group, self.clusters, self.iters, self.init,
                                 resplit=self.empty == 'resplit')
        if self.detach_centroids:
            found = found._replace(centroids=found.centroids.detach())
        return found

    def forward(self, group0: Tensor, group1: Tensor) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            group0: L2-normalised group features (B, D) of one view of each tile.
            group1: those of the other view.

        Returns:
            ``loss_cluster`` and, if asked for, ``loss_mutual_information``, both times λ;
            ``cluster_smallest`` and ``cluster_largest``, the shares of the tiles;
            ``clusters_empty``, their number; ``label_agreement`` of the two views in [0, 1].
        """
        found0, found1 = self.find_clusters(group0), self.find_clusters(group1)
        present = (None, None) if self.empty == 'zero' else (found0.sizes > 0, found1.sizes > 0)
        views = group0, group1, found0.centroids, found1.centroids
        outputs = {'loss_cluster': self.weight * cluster_contrast(
            *views, found0.labels, found1.labels, self.temperature, *present)}
        if self.mutual_information:
            joint = distributed.all_gather_with_grad(joint_assignment(*views, *present)[None])
            outputs['loss_mutual_information'] = (
                self.weight * negative_mutual_information(joint.sum(0)))
        sizes = torch.stack([found0.sizes, found1.sizes])
        outputs['cluster_smallest'] = (sizes.amin(1) / sizes.sum(1)).mean()
        outputs['cluster_largest'] = (sizes.amax(1) / sizes.sum(1)).mean()
        outputs['clusters_empty'] = (sizes == 0).sum(1).float().mean()
        outputs['label_agreement'] = health.label_agreement(found0.labels, found1.labels,
                                                            self.clusters)
        return outputs
