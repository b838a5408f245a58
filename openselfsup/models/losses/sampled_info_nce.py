"""InfoNCE in which every query has negatives of its own, drawn from one bank.

Of a query q with positive k⁺ and negatives b_j, j in the K rows of the bank drawn for it (one row
may be drawn several times), at temperature T:

    loss = -log [ e^s / (e^s + Σ_j e^(q·b_j/T)) ] = -log σ(s - L),
    s = q·k⁺/T,    L = log Σ_j e^(q·b_j/T),    ∂L/∂q = Σ_j softmax_j(q·b_j/T) b_j / T.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def sampled_info_nce(query: Tensor, positive: Tensor, bank: Tensor, negatives: Tensor,
                     temperature: float) -> tuple[Tensor, Tensor]:
    """Contrast every query with its positive against rows of a bank that were drawn for it.

    Computed in float32 at least, whatever the autocast state. The bank gets no gradient and may be
    overwritten before backward.

    Args:
        query: L2-normalised tensor of shape (B, D), B >= 1.
        positive: L2-normalised tensor of shape (B, D); it gets no gradient.
        bank: L2-normalised tensor of shape (N, D).
        negatives: int64 tensor of shape (B, K) with values in [0, N), K >= 1.
        temperature: T > 0.

    Returns:
        The loss, the mean over the queries, and the share of queries that are closer to their
        positive than to all of their negatives, both scalars.
    """
    with torch.autocast(query.device.type, enabled=False):
        query = query.to(torch.promote_types(query.dtype, torch.float32))
        own = (query * positive.detach()).sum(1) / temperature
        others, hardest = _LogSumExp.apply(query, bank, negatives, temperature)
        return -F.logsigmoid(own - others).mean(), (own.detach() > hardest).float().mean()


class _LogSumExp(torch.autograd.Function):
    """L of each query (B,), with its gradient to the query alone, and the largest logit (B,)."""

    @staticmethod
    def forward(ctx, query: Tensor, bank: Tensor, negatives: Tensor, temperature: float):
        query, bank = query / temperature, bank.to(query.dtype)
        # Either all products with the bank or all drawn rows: whichever are fewer numbers.
        whole = len(bank) <= negatives.shape[1] * bank.shape[1]
        rows = None if whole else bank[negatives]  # B x K x D
        logits = ((query @ bank.T).gather(1, negatives) if rows is None
                  else torch.einsum('bd,bkd->bk', query, rows))  # B x K
        lse = logits.logsumexp(1)
        share = (logits - lse[:, None]).exp()
        if rows is None:
            share = share.new_zeros(len(query), len(bank)).scatter_add_(1, negatives, share)
            mean = share @ bank  # B x D
        else:
            mean = torch.einsum('bk,bkd->bd', share, rows)
        ctx.temperature = temperature
        ctx.save_for_backward(mean)
        hardest = logits.amax(1)
        ctx.mark_non_differentiable(hardest)
        return lse, hardest

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _):
        mean, = ctx.saved_tensors
        return (grad / ctx.temperature)[:, None] * mean, None, None, None
