"""PLM + SimCLR: cells matched by place, against the other tiles of the batch and without a queue.

PLM's dense loss (arXiv 2212.12105) where SimCLR's pairs (arXiv 2002.05709) are in place of MoCo's.
This definition is **ours**, and no number of it reproduces a published one. In runs of a few
hundred steps it learns much more than PLM with its queue does (docs/tried.md).
"""

import torch
from torch import Tensor, nn

from ... import distributed
from ...errors import UserError
from ...registry import ALGORITHMS
from ...values import Fraction, Positive
from ...views import Matching
from ..losses import nt_xent_of_pairs
from ..parts import (
    cells,
    check_maps,
    check_matching_neck,
    dense_projections,
    in_a_row,
    matched,
    normalize,
    zero_loss,
)
from .simclr import SimCLR, check_others


@ALGORITHMS.register_module()
class PLMSimCLR(SimCLR):
    """SimCLR plus a loss per cell, cells matched by where on the tile they lie. Ours.

    With cells X^i of view i (not normalised), matchings M^i and coverage weights w^i, of both
    views i and j:

        L = (1 - λ) · NT-Xent + λ · mean over cells c of w^i_c · CE_c,

    where CE_c contrasts X^i_c with fc(M^i X^j)_c at temperature T against the pooled cells of
    both views of all other tiles of the batch, those of other ranks too. There is one encoder and
    one fc, and no gradient is stopped.

    Args:
        backbone: config of a backbone, or a module; its last feature map gives the N x N grid.
        neck: config of a :class:`DenseCLNeck`, or a module with its outputs.
        matching_neck: config of a matching neck, or a module.
        temperature: T of both losses.
        loss_lambda: weight λ of the dense loss in [0, 1]. At λ = 0 it is not computed, and its
            parameters get gradients of exactly 0.
        adversary, joint: see :class:`SimCLR`; what is attacked is the loss of whole views.

    Raises:
        UserError: λ or sizes are impossible, or a batch has a single tile.
    """

    needs_geometry = True

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module,
                 matching_neck: dict | nn.Module, temperature: Positive = 0.2,
                 loss_lambda: Fraction = 0.5, adversary: dict | None = None,
                 joint: bool = False):
        super().__init__(backbone, neck, temperature, adversary, joint,
                         parts=dict(matching_neck=matching_neck))
        if not 0 <= loss_lambda <= 1:
            raise UserError(f'loss_lambda is {loss_lambda}', where='model.loss_lambda',
                            expected='a number from 0 to 1')
        check_matching_neck(self.encoder_q['matching_neck'],
                            getattr(self.encoder_q['neck'], 'out_channels', None))
        self.loss_lambda = loss_lambda

    def encode(self, encoder: nn.ModuleDict, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, S, S) to what both losses need.

        Returns:
            The normalised projection (B, D), that of the cells (B, D, N, N), not normalised, and
            the normalised mean of the latter (B, D).
        """
        projected, grid, pooled = dense_projections(encoder['neck'],
                                                    encoder['backbone'](images))
        return normalize(projected), grid, normalize(pooled)

    def contrast(self, first: tuple[Tensor, ...], second: tuple[Tensor, ...],
                 view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return both losses and monitors of what :meth:`encode` made of both views."""
        maps = check_maps(view_to_tile, self)
        matching = matched(maps, first[1], second[1], self.geometry)
        outputs = super().contrast(first, second)
        outputs['loss_instance'] = (1 - self.loss_lambda) * outputs['loss_instance']
        outputs['loss_dense'] = (self.loss_lambda * self.dense_loss(first, second, matching)
                                 if self.loss_lambda
                                 else zero_loss(first[1], self.encoder_q['matching_neck']))
        coverage = in_a_row(matching.weight_q, matching.weight_k)
        return outputs | {'matched_fraction': (coverage > 0).float().mean(),
                          'mean_coverage': coverage.mean()}

    def dense_loss(self, first: tuple[Tensor, ...], second: tuple[Tensor, ...],
                   matching: Matching) -> Tensor:
        """Return mean(w·CE) over the cells of both views."""
        neck = self.encoder_q['matching_neck']
        x, y = cells(first[1]), cells(second[1])  # B x N x D, B x M x D
        anchors = normalize(in_a_row(x, y))  # B·N + B·M x D
        positives = normalize(in_a_row(neck(y, matching.match_q), neck(x, matching.match_k)))
        # Rows 2t and 2t + 1 are the views of tile t, of all ranks.
        pooled = distributed.all_gather_with_grad(
            torch.stack([first[2], second[2]], 1).flatten(0, 1))
        check_others(pooled[::2])
        views = 2 * len(x) * distributed.rank() + torch.arange(2 * len(x), device=x.device)
        own = in_a_row(*(views.view(-1, 1, 2).expand(-1, seen.shape[1], -1) for seen in (x, y)))
        losses = nt_xent_of_pairs(anchors, positives, pooled, own, self.temperature)
        return (losses * in_a_row(matching.weight_q, matching.weight_k)).mean()
