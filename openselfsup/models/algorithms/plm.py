"""PLM: precise location matching (arXiv 2212.12105, IPMI 2023)."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ... import distributed
from ...errors import UserError
from ...registry import ALGORITHMS
from ...values import Count, Fraction, Positive
from ...views import Matching
from .. import health
from ..losses import info_nce
from ..memories import Queue
from ..method import Geometry
from ..parts import (
    cells,
    check_maps,
    check_matching_neck,
    check_projection,
    dense_projections,
    in_a_row,
    matched,
    normalize,
    total_loss,
    weighted_mean,
    zero_loss,
)
from .momentum import MomentumContrast

DenseReduction = Literal['mean', 'weighted_mean']
DENSE_REDUCTIONS = get_args(DenseReduction)


@ALGORITHMS.register_module(name=['PLM', 'LocMatCL'])
class PLM(MomentumContrast):
    """MoCo v2 plus a loss per cell, cells matched by where on the tile they lie.

    Args:
        backbone: config of a backbone, or a module; its last feature map gives the N x N grid.
        neck: config of a :class:`DenseCLNeck`, or a module with its outputs.
        matching_neck: config of a matching neck, or a module.
        queue_len: number K of keys in each of the two queues.
        feat_dim: size D of both projections.
        momentum: m of the key encoder.
        temperature: T of both losses.
        loss_lambda: weight λ of the dense loss in [0, 1]; the global one has 1 - λ. At λ = 0
            the dense loss is not computed, and its parameters get gradients of exactly 0; at
            λ = 1 the global one, which costs little, is computed and multiplied by 0.
        dense_reduction: 'mean' over all cells of both views (published) or 'weighted_mean',
            by the coverage weights, which keeps λ's meaning where views overlap little.
        geometry: 'axis_aligned' or 'affine', what ``view_to_tile`` may be; a run sets it to what
            its recipes are.
        group_neck: config of a neck for the cluster head, which takes the backbone's maps
            beside the global branch, or a module.
        shuffle, cluster, adversary: see :class:`MomentumContrast`.

    Raises:
        UserError: λ, reduction or sizes are impossible.
    """

    needs_geometry = True

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module,
                 matching_neck: dict | nn.Module, queue_len: Count = 16384, feat_dim: Count = 128,
                 momentum: Fraction = 0.999, temperature: Positive = 0.2,
                 loss_lambda: Fraction = 1.0,
                 dense_reduction: DenseReduction = 'mean',
                 geometry: Geometry = 'axis_aligned',
                 shuffle: bool | None = None, group_neck: dict | nn.Module | None = None,
                 cluster: dict | nn.Module | None = None, adversary: dict | None = None):
        super().__init__(backbone, neck, momentum, shuffle, cluster, adversary,
                         matching_neck=matching_neck, group_neck=group_neck)
        check_projection(self.encoder_q['neck'], feat_dim)
        check_matching_neck(self.encoder_q['matching_neck'], feat_dim)
        if not 0 <= loss_lambda <= 1:
            raise UserError(f'loss_lambda is {loss_lambda}', where='model.loss_lambda',
                            expected='a number from 0 to 1')
        if dense_reduction not in DENSE_REDUCTIONS:
            raise UserError(f"no reduction is called '{dense_reduction}'",
                            where='model.dense_reduction',
                            expected='one of ' + ', '.join(DENSE_REDUCTIONS))
        self.queue = Queue(queue_len, feat_dim)
        self.queue_dense = Queue(queue_len, feat_dim)
        self.temperature, self.loss_lambda = temperature, loss_lambda
        self.dense_reduction, self.geometry = dense_reduction, geometry

    def encode(self, encoder: nn.ModuleDict, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, S, S) to what both losses need, not normalised.

        Returns:
            The global projection (B, D), the dense one (B, D, N, N), the projection pooled
            over cells (B, D) and, with a cluster head, group features (B, D').
        """
        maps = encoder['backbone'](images)
        return *dense_projections(encoder['neck'], maps), *self.group(encoder, maps)

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: two tensors of shape (B, 3, S, S), queries and keys.
            view_to_tile: float32 tensor of shape (B, V, 2, 3), maps from view to tile fractions.
        """
        maps = check_maps(view_to_tile, self)
        keys = self.encode_keys(views[1])  # first, while nothing is kept for backward
        queries = self.encode(self.encoder_q, views[0])
        q, q_grid, q_pooled, *group_q = queries
        k, k_grid, k_pooled, *group_k = keys
        matching = matched(maps, q_grid, k_grid, self.geometry)

        outputs = self.contrast(queries, keys, matching)
        self.add_parts(outputs, views[0], (*group_q, *group_k), lambda attacked: total_loss(
            self.contrast(attacked, keys, matching)))

        self.features = normalize(q if self.loss_lambda < 1 else q_pooled).detach()
        coverage = in_a_row(matching.weight_q, matching.weight_k)
        outputs.update({
            'feature_std': health.feature_std(self.features),
            'matched_fraction': (coverage > 0).float().mean(),
            'mean_coverage': coverage.mean(),
            'queue_filled': self.queue.filled_fraction()})
        if self.training:
            self.queue.enqueue(distributed.all_gather(normalize(k)))
            self.queue_dense.enqueue(distributed.all_gather(normalize(k_pooled)))
        return outputs

    def contrast(self, queries: tuple[Tensor, ...], keys: tuple[Tensor, ...],
                 matching: Matching) -> dict[str, Tensor]:
        """Return both losses and their accuracies for what :meth:`encode` made of both views."""
        (q, q_grid), (k, k_grid), outputs = queries[:2], keys[:2], {}
        q, k = normalize(q), normalize(k)
        loss_single = info_nce(q, k, self.queue.vectors, self.temperature)
        if self.loss_lambda:
            anchors, positives, weights = self.matched_cells(cells(q_grid), cells(k_grid),
                                                             matching)
            loss_dense = self.dense_loss(anchors, positives, weights)
            outputs['acc_dense'] = health.contrastive_accuracy(
                anchors, positives, self.queue_dense.vectors, weights, at_most=256)
        else:
            loss_dense = zero_loss(q_grid, self.encoder_q['matching_neck'])
        return {'loss_contra_single': (1 - self.loss_lambda) * loss_single,
                'loss_contra_dense': self.loss_lambda * loss_dense,
                'acc_contrast': health.contrastive_accuracy(q, k, self.queue.vectors), **outputs}

    def matched_cells(self, query: Tensor, key: Tensor,
                      matching: Matching) -> tuple[Tensor, Tensor, Tensor]:
        """Pair each cell of either view with what the other view saw of the same place.

        Args:
            query: dense query projection Q of shape (B, N, D), not normalised.
            key: dense key projection K of shape (B, M, D), not normalised.
            matching: M^q, M^k and the coverage weights w^q, w^k of the two views.

        Returns:
            Normalised anchors and positives (B·N + B·M, D), and weights (B·N + B·M,).
        """
        neck_q, neck_k = self.encoder_q['matching_neck'], self.encoder_k['matching_neck']
        # Direction 1, weights w^q: Q_i against fc_k(M^q K)_i, no gradient to the keys.
        with torch.no_grad():
            seen_by_keys = neck_k(key, matching.match_q)
        # Direction 2, weights w^k: fc_q(M^k Q)_j against K_j, which passes no fc.
        seen_by_queries = neck_q(query, matching.match_k)
        return (in_a_row(normalize(query), normalize(seen_by_queries)),
                in_a_row(normalize(seen_by_keys), normalize(key)),
                in_a_row(matching.weight_q, matching.weight_k))

    def dense_loss(self, anchors: Tensor, positives: Tensor, weights: Tensor) -> Tensor:
        """Return mean(w·CE), or Σ w·CE / Σ w over all ranks, against the pooled dense keys."""
        negatives = self.queue_dense.vectors
        if self.dense_reduction == 'mean':
            return info_nce(anchors, positives, negatives, self.temperature, weights)
        return weighted_mean(
            info_nce(anchors, positives, negatives, self.temperature, weights, 'none'), weights)
