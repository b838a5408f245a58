"""DenseCL: dense contrastive learning (arXiv 2011.09157)."""

import torch
from torch import Tensor, nn

from ... import distributed
from ...registry import ALGORITHMS
from ...values import Count, Fraction, Positive
from .. import health
from ..losses import info_nce
from ..memories import Queue
from ..parts import cells, check_projection, dense_projections, normalize, zero_loss
from .momentum import MomentumContrast


@ALGORITHMS.register_module()
class DenseCL(MomentumContrast):
    """MoCo v2 plus a loss per cell, cells paired by the similarity of backbone features.

    Args:
        backbone: config of a backbone, or a module.
        neck: config of a :class:`DenseCLNeck`, or a module with its outputs.
        queue_len: number K of keys in each of the two queues.
        feat_dim: size D of both projections.
        momentum: m of the key encoder.
        temperature: T of both losses.
        loss_lambda: weight λ of the dense loss; the global one has 1 - λ.
        shuffle: see :class:`MomentumContrast`.
    """

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module, queue_len: Count = 16384,
                 feat_dim: Count = 128, momentum: Fraction = 0.999, temperature: Positive = 0.2,
                 loss_lambda: Fraction = 0.5, shuffle: bool | None = None):
        super().__init__(backbone, neck, momentum, shuffle)
        check_projection(self.encoder_q['neck'], feat_dim)
        self.queue = Queue(queue_len, feat_dim)
        self.queue_dense = Queue(queue_len, feat_dim)
        self.temperature, self.loss_lambda = temperature, loss_lambda

    def encode(self, encoder: nn.ModuleDict, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, S, S) to what both losses need.

        Returns:
            The global projection (B, D), the dense one (B, D, N, N), the projection pooled over
            cells (B, D), and the backbone's last feature map (B, C, N, N).
        """
        maps = encoder['backbone'](images)
        return *dense_projections(encoder['neck'], maps), maps[-1]

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: two tensors of shape (B, 3, S, S), queries and keys.
            view_to_tile: not used: cells find each other by their features.
        """
        # Keys first, while nothing is kept for backward.
        k, k_grid, k_pooled, k_map = self.encode_keys(views[1])
        q, q_grid, q_pooled, q_map = self.encode(self.encoder_q, views[0])
        q, k = normalize(q), normalize(k)

        # Eq. 1, global, and eq. 2, dense: cell i's positive is key cell argmax_j sim(f_i, f'_j)
        # (eq. 3); negatives are pooled dense keys of other images.
        loss_single = info_nce(q, k, self.queue.vectors, self.temperature)
        paired = torch.take_along_dim(cells(k_grid), closest(q_map, k_map)[..., None], 1)
        anchors = normalize(cells(q_grid)).flatten(0, 1)  # B·N² x D
        positives = normalize(paired).flatten(0, 1)
        if self.loss_lambda:
            loss_dense = info_nce(anchors, positives, self.queue_dense.vectors, self.temperature)
        else:
            loss_dense = zero_loss(q_grid)

        self.features = (q if self.loss_lambda < 1 else normalize(q_pooled)).detach()
        outputs = {
            'loss_contra_single': (1 - self.loss_lambda) * loss_single,
            'loss_contra_dense': self.loss_lambda * loss_dense,
            'acc_contrast': health.contrastive_accuracy(q, k, self.queue.vectors),
            'acc_dense': health.contrastive_accuracy(anchors, positives,
                                                     self.queue_dense.vectors, at_most=256),
            'feature_std': health.feature_std(self.features),
            'queue_filled': self.queue.filled_fraction()}
        if self.training:
            self.queue.enqueue(distributed.all_gather(k))
            self.queue_dense.enqueue(distributed.all_gather(normalize(k_pooled)))
        return outputs


@torch.no_grad()
def closest(query: Tensor, key: Tensor) -> Tensor:
    """Return which cell of the key has the highest cosine similarity to each of the query's.

    Args:
        query: feature map of shape (B, C, h, w), not normalised.
        key: feature map of shape (B, C, h', w'), not normalised.

    Returns:
        int64 tensor of shape (B, h·w) with values in [0, h'·w'). Compared in float32: the
        products of bfloat16 would tie cells that differ.
    """
    with torch.autocast(query.device.type, enabled=False):
        similarity = normalize(cells(query)) @ normalize(cells(key)).transpose(1, 2)
    return similarity.argmax(2)
