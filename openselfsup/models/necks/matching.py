"""PLM's matching necks: what the cells of one view look like at the cells of the other.

Precise location matching, arXiv 2212.12105. Both aggregate the cells x of one view, which are
not normalised, with a matching matrix M whose row i says how much of cell i of the other view
each of them covers: rows sum to 1, or are zero where nothing overlaps.
"""

import torch
from torch import Tensor, nn

from ...registry import NECKS
from ...values import Count


@NECKS.register_module()
class MatchingNeck(nn.Module):
    """fc(M x): cells averaged by the area they cover.

    Args:
        channels: size D of the cell vectors.
        linear: whether the linear layer follows; without it the neck has no parameters.
    """

    def __init__(self, channels: Count, linear: bool = True):
        super().__init__()
        self.fc = nn.Linear(channels, channels) if linear else nn.Identity()

    def forward(self, x: Tensor, match: Tensor) -> Tensor:
        """Map cells (B, N, D) and matching matrices (B, M, N) to cells (B, M, D)."""
        return self.fc(match.to(x.dtype) @ x)


@NECKS.register_module()
class AttentionMatchingNeck(nn.Module):
    """fc(A x), A_ij = exp(s_j) / Σ_{l: M_il > 0} exp(s_l) where M_ij > 0, otherwise 0.

    The score s_j of a cell comes from its vector alone; of M only counts which cells overlap.

    Args:
        channels: size D of the cell vectors.
        mid_channels: size of the hidden layer of the score.
    """

    def __init__(self, channels: Count, mid_channels: Count):
        super().__init__()
        self.attention = nn.Sequential(nn.Conv1d(channels, mid_channels, 1), nn.Tanh(),
                                       nn.Conv1d(mid_channels, 1, 1))
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor, match: Tensor) -> Tensor:
        """Map cells (B, N, D) and matching matrices (B, M, N) to cells (B, M, D)."""
        scores = self.attention(x.transpose(1, 2)).float()  # B x 1 x N
        overlaps = match > 0
        # finfo.min and not -inf, so that a row without overlap stays finite before the product.
        scores = torch.where(overlaps, scores, torch.finfo(scores.dtype).min)
        attention = torch.softmax(scores, -1) * overlaps  # B x M x N
        return self.fc(attention.to(x.dtype) @ x)
