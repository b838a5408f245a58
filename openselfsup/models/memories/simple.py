"""The memory of NPID: one vector for each tile of the data set."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import distributed

# SplitMix64 (Steele, Lea & Flood 2014), its constants as signed numbers of 64 bits.
_WEYL = 0x9E3779B97F4A7C15 - 2 ** 64
_MIX = ((30, 0xBF58476D1CE4E5B9 - 2 ** 64), (27, 0x94D049BB133111EB - 2 ** 64), (31, 1))


class SimpleMemory(nn.Module):
    """A bank of L2-normalised vectors, each a moving average of what a tile was mapped to.

    Instance discrimination, arXiv 1805.01978, sec. 3.2. Rows start as random directions. All ranks
    hold the same bank: they exchange what they write.

    Args:
        length: number N of tiles.
        dim: size D of a vector.
        momentum: m in [0, 1], the weight of the **new** vector.

    Attributes:
        feature_bank: buffer of shape (N, D).
        written: int64 buffer of shape (N,), the update that wrote the row, 0 for none yet.
        updates: int64 buffer of shape (1,), the updates so far.
    """

    feature_bank: Tensor
    written: Tensor
    updates: Tensor

    def __init__(self, length: int, dim: int, momentum: float = 0.5):
        super().__init__()
        self.momentum = momentum
        self.register_buffer('feature_bank', F.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer('written', torch.zeros(length, dtype=torch.int64))
        self.register_buffer('updates', torch.zeros(1, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.feature_bank)

    @torch.no_grad()
    def update(self, index: Tensor, vectors: Tensor) -> None:
        """Move the rows of all ranks' tiles: row ← norm((1 - m) row + m vector).

        A tile that is several times in the global batch is moved once, by the last of its vectors
        in the order of the ranks.

        Args:
            index: int64 tensor of shape (B,), rows to move.
            vectors: L2-normalised tensor of shape (B, D).
        """
        index, vectors = distributed.all_gather(index), distributed.all_gather(vectors)
        vectors = vectors.to(self.feature_bank.dtype)
        moved = F.normalize(torch.lerp(self.feature_bank[index], vectors, self.momentum), dim=1)
        moved = moved[last_of_each(index)]  # rows written twice are written with the same numbers
        self.feature_bank.index_copy_(0, index, moved)
        self.updates += 1
        self.written.index_copy_(0, index, self.updates.expand(len(index)))

    def filled_fraction(self) -> Tensor:
        """Return the share of rows that hold a tile's vector, a scalar tensor."""
        return (self.written > 0).float().mean()

    def age(self) -> Tensor:
        """Return how many updates ago filled rows were written, their mean, a scalar tensor."""
        filled = self.written > 0
        return ((self.updates - self.written) * filled).sum().float() / filled.sum().clamp_min(1)


def last_of_each(index: Tensor) -> Tensor:
    """Return the place of the last entry equal to each entry of ``index``, int64 (B,)."""
    places = torch.arange(len(index), device=index.device)
    return torch.where(index[:, None] == index, places, -1).amax(1)


def draw_rows(key: Tensor, count: int, length: int, index: Tensor,
              leave_out: bool) -> Tensor:
    """Draw ``count`` rows for each tile, uniform with replacement.

    The n-th row of a tile is a hash of the key, the tile's place in the global batch and n: ranks
    together draw what one process draws for all their tiles.

    Args:
        key: int64 tensor of shape (1,), the same on all ranks.
        count: rows K for each tile.
        length: number N of rows, at least 2 with ``leave_out``.
        index: int64 tensor of shape (B,), the tiles' own rows.
        leave_out: draw from the N - 1 rows that are not the tile's own: the distribution that
            drawing again until it is another row has, without looking at what was drawn.

    Returns:
        int64 tensor of shape (B, K).
    """
    rows = len(index)
    start = distributed.rank() * rows
    places = torch.arange(start * count, (start + rows) * count, device=index.device)
    z = key + (places + 1) * _WEYL
    for shift, factor in _MIX:
        z = (z ^ (z >> shift & (1 << 64 - shift) - 1)) * factor
    drawn = ((z >> 1 & (1 << 63) - 1) % (length - leave_out)).view(rows, count)
    return drawn + (drawn >= index[:, None]) if leave_out else drawn
