"""What a teacher's logits become before a student learns them: centred, or balanced by Sinkhorn.

Both look at the rows of all ranks; a rank without rows takes part all the same.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .. import distributed
from .parts import at_least_float32

Targets = Literal['centering', 'sinkhorn']
TARGETS = get_args(Targets)


class Centre(nn.Module):
    """The moving mean of a teacher's logits, taken off before the softmax (DINO, sec. 3.1).

    Args:
        prototypes: number K of logits.
        momentum: m of the mean, c ← m c + (1 - m) mean.
    """

    value: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(prototypes))

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Return softmax((t - c) / τ) of logits (..., K), float32 at least."""
        with torch.autocast(logits.device.type, enabled=False):
            return ((at_least_float32(logits) - self.value) / temperature).softmax(-1)

    @torch.no_grad()
    def update(self, logits: Tensor, valid: Tensor | None = None) -> None:
        """Move the centre towards the mean of the rows of all ranks, where there are any.

        Sums and counts are exchanged: ranks may have different numbers of rows.

        Args:
            logits: the teacher's, (n, K), n >= 0.
            valid: 1 for rows that count, 0 for others, (n,); all if None.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            rows = logits.new_ones(len(logits)) if valid is None else valid.to(logits.dtype)
            found = torch.cat([rows @ logits, rows.sum()[None]])
            found = distributed.all_reduce_sum(found)
            total, count = found[:-1], found[-1]
            mean = torch.where(count > 0, total / count.clamp_min(1), self.value)
            self.value.lerp_(mean.to(self.value.dtype), 1 - self.momentum)


@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, temperature: float, iterations: int = 3,
                   valid: Tensor | None = None) -> Tensor:
    """Return probabilities by which all prototypes are used alike (SwAV, arXiv 2006.09882).

    Q = exp(t / τ); ``iterations`` times, its columns over the rows of all ranks are divided by
    their sums, then its rows by theirs. The largest of all logits is taken off first, which
    changes nothing but that no exponential overflows.

    Args:
        logits: the teacher's of this rank's n rows, (n, K), n >= 0 and different on each rank.
        temperature: τ of the teacher.
        iterations: how often columns and rows are normalised.
        valid: 1 for rows that count, 0 for others, which get the probabilities 0, (n,).

    Returns:
        Tensor of shape (n, K), float32 at least; rows sum to 1.
    """
    with torch.autocast(logits.device.type, enabled=False):
        scaled = at_least_float32(logits) / temperature
        if valid is not None:
            scaled = scaled.masked_fill(valid[:, None] == 0, -torch.inf)
        tiny = torch.finfo(scaled.dtype).tiny
        largest = torch.cat([scaled.flatten(), scaled.new_full((1,), -1e30)]).amax()
        q = (scaled - distributed.all_reduce_max(largest)).exp()
        for _ in range(iterations):
            q = q / distributed.all_reduce_sum(q.sum(0)).clamp_min(tiny)
            q = q / q.sum(1, keepdim=True).clamp_min(tiny)
        return q
