"""PLM + VICRegL: cells that share tissue, in place of cells whose centres lie near each other.

PLM's paper (arXiv 2212.12105) reports a combination with VICRegL (arXiv 2210.01571), but neither
its definition nor its code is published: this definition is **ours**, in the spirit of both, and
no number of it reproduces a published one.
"""

import torch
from torch import Tensor, nn

from ... import distributed
from ...errors import UserError
from ...registry import ALGORITHMS, NECKS
from ...values import Count, Fraction, NotNegative
from ...views import match_cells
from ..losses import variance_term
from ..losses.vicreg import Terms
from ..parts import built, check_matching_neck
from .vicregl import VICRegL


@ALGORITHMS.register_module()
class PLMVICRegL(VICRegL):
    """VICRegL whose pairs by location are PLM's exact matchings. This definition is ours.

    For views i and j with cells x and y, matching M^i and coverage weights w^i, the pairs by
    location of VICRegL are replaced by x and fc(M^i y): invariance mean w^i ‖x - fc(M^i y)‖² / D
    over all cells, variance and covariance of each over the cells with w^i > 0 of all tiles. So
    for the reverse direction. The loss of whole views and the pairs by features stay. There is
    one fc, without moving average, and no gradient is stopped.

    Args:
        matching_neck: config of a matching neck of the size of the cells' embedding, or a
            module; not built at α = 1.
        num_matches: how many pairs by features are kept in either direction where not all are.
        backbone, projector, maps_projector, alpha, inv_coeff, var_coeff, cov_coeff: see
            :class:`VICRegL`.
        l2_all_matches, num_classes: see :class:`VICRegL`.

    Raises:
        UserError: a needed part is missing, or sizes or numbers are impossible.
    """

    def __init__(self, backbone: dict | nn.Module, matching_neck: dict | nn.Module | None = None,
                 projector: dict | nn.Module | None = None,
                 maps_projector: dict | nn.Module | None = None, alpha: Fraction = 0.75,
                 inv_coeff: NotNegative = 25.0, var_coeff: NotNegative = 25.0,
                 cov_coeff: NotNegative = 1.0, num_matches: tuple[Count, Count] = (20, 4),
                 l2_all_matches: bool = True, num_classes: Count | None = None):
        super().__init__(backbone, projector, maps_projector, alpha, inv_coeff, var_coeff,
                         cov_coeff, num_matches, l2_all_matches, num_classes=num_classes)
        self.matching_neck = built(matching_neck if alpha < 1 else None, NECKS)
        if alpha == 1:
            return
        if self.matching_neck is None:
            raise UserError('alpha gives weight to a loss without its matching_neck',
                            where='model.matching_neck', expected="dict(type='MatchingNeck', ...)")
        check_matching_neck(self.matching_neck,
                            getattr(self.maps_projector, 'out_channels', None))

    def location_count(self, count: int) -> None:
        """Let all cells that share tissue with the other view count."""

    def location_terms(self, x: Tensor, y: Tensor, x_to_tile: Tensor, y_to_tile: Tensor,
                       x_grid: tuple[int, int], y_grid: tuple[int, int], count: int | None
                       ) -> tuple[Terms, Tensor]:
        """Compare cells x (B, N, D) with what the cells y (B, M, D) saw of the same place.

        Returns:
            The terms, and the share of cells that share tissue with the other view.
        """
        matching = match_cells(x_to_tile, y_to_tile, x_grid, self.geometry, y_grid)
        weights = matching.weight_q.to(x.dtype)  # B x N
        assert self.matching_neck is not None, 'checked'
        seen = self.matching_neck(y, matching.match_q)  # fc(M y), B x N x D
        covered = weights > 0
        spread = [_spread(cells, covered) for cells in (x, seen)]
        return Terms(((x - seen).square().mean(-1) * weights).mean(),
                     (spread[0][0] + spread[1][0]) / 2, (spread[0][1] + spread[1][1]) / 2
                     ), covered.to(x.dtype).mean()


def _spread(cells: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return variance and covariance terms of those cells (B, N, D) of all ranks that count.

    Args:
        cells: embeddings, float32 at least.
        counts: bool tensor of shape (B, N). Of less than two cells both terms are 0.
    """
    counted = counts.flatten()[:, None].to(cells.dtype)
    cells = cells.flatten(0, 1)
    sums = torch.cat([counted.sum(0), (counted * cells).sum(0)])
    number, total = distributed.all_gather_with_grad(sums[None]).sum(0).split(
        [1, cells.shape[1]])
    centred = counted * (cells - total / number.clamp_min(1))
    covariance = distributed.all_gather_with_grad((centred.T @ centred)[None]).sum(0)
    covariance = covariance / (number - 1).clamp_min(1)  # D x D
    variances = covariance.diagonal()
    off_diagonal = covariance.square().sum() - variances.square().sum()
    any_ = (number[0] > 1).to(cells.dtype)
    return any_ * variance_term(variances), any_ * off_diagonal / cells.shape[1]
