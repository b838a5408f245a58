"""NT-Xent, the loss of SimCLR (arXiv 2002.05709, eq. 1), in memory linear in the batch.

For an anchor z_i with positive z_j among 2B vectors, at temperature T,

    loss_i = -log [ e^(z_i·z_j/T) / Σ_{k≠i} e^(z_i·z_k/T) ] = L_i - z_i·z_j/T.

Where the positive is not one of the vectors, as a matched cell is none of the pooled ones, it
joins the sum. The log-sum-exp L_i is taken some anchors at a time, and its gradient
P = ∂L_i/∂(z_i·z_k/T), the softmax, is made again in backward: no 2B x 2B matrix exists in either
pass.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_ELEMENTS = 1 << 20  # similarities that exist at a time: they stay in a core's cache


def nt_xent(first: Tensor, second: Tensor, temperature: float,
            gathered: tuple[Tensor, Tensor] | None = None, offset: int = 0) -> Tensor:
    """Contrast each view of each image with all other views of all images.

    Computed in float32 (float64 for float64 inputs) whatever the autocast state, except that
    under autocast the products are taken in autocast's dtype.

    Args:
        first: L2-normalised tensor of shape (B, D), any B >= 1: one view of each image.
        second: L2-normalised tensor of shape (B, D): the other view.
        temperature: T > 0.
        gathered: the same two of all ranks, each of shape (W·B, D) and gathered with gradient,
            to contrast with; ``first`` and ``second`` themselves if None. The mean of the ranks'
            losses then is the loss of one process with W·B images.
        offset: row of ``gathered`` where this rank's images start.

    Returns:
        Scalar tensor, the mean over the 2·B anchors.

    Raises:
        ValueError: shapes do not fit or the temperature is not positive.
    """
    everyone = gathered or (first, second)
    _check(first, second, everyone, temperature, offset)
    device = first.device.type
    anchors, others = torch.cat([first, second]), torch.cat(everyone)  # 2B x D, 2M x D
    exact, dtype = _precisions(anchors)
    with torch.autocast(device, enabled=False):
        anchors, others = anchors.to(exact), others.to(exact)
        images = torch.arange(offset, offset + len(first), device=first.device)
        own = torch.cat([images, images + len(others) // 2])  # each anchor's row in others
        positives = torch.cat([second, first]).to(exact)
        similarity = (anchors * positives).sum(1) / temperature
        if gathered is None:
            lse = _LogSumExpOfEachOther.apply(anchors, temperature, dtype)
        else:
            lse = _LogSumExpOfOthers.apply(anchors, others, own[:, None], temperature, dtype)
        return (lse - similarity).mean()


def nt_xent_of_pairs(anchors: Tensor, positives: Tensor, others: Tensor, own: Tensor,
                     temperature: float) -> Tensor:
    """Contrast anchors that have positives of their own with vectors of other images.

    Of anchor a_i with positive p_i and the vectors o_k that are not its own,

        loss_i = -log [ e^(a_i·p_i/T) / (e^(a_i·p_i/T) + Σ_{k ∉ own_i} e^(a_i·o_k/T)) ].

    Precision is that of :func:`nt_xent`; gradients flow to all three.

    Args:
        anchors: L2-normalised tensor of shape (N, D).
        positives: L2-normalised tensor of shape (N, D).
        others: L2-normalised tensor of shape (M, D), of all images, the anchors' own too.
        own: int64 tensor of shape (N, R), rows of ``others`` that an anchor is not contrasted
            with, R < M.
        temperature: T > 0.

    Returns:
        Tensor of shape (N,).

    Raises:
        ValueError: shapes do not fit, there are no vectors of other images, or the temperature is
            not positive.
    """
    if (anchors.ndim != 2 or anchors.shape != positives.shape
            or others.ndim != 2 or others.shape[1:] != anchors.shape[1:]
            or own.ndim != 2 or len(own) != len(anchors)):
        raise ValueError('anchors and positives must have one shape (N, D), others (M, D) and own '
                         f'(N, R), not {tuple(anchors.shape)}, {tuple(positives.shape)}, '
                         f'{tuple(others.shape)} and {tuple(own.shape)}')
    if len(others) <= own.shape[1]:
        raise ValueError(f'of {len(others)} vectors {own.shape[1]} are an anchor\'s own: it needs '
                         'those of at least one other image')
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, not {temperature}')
    exact, dtype = _precisions(anchors)
    with torch.autocast(anchors.device.type, enabled=False):
        anchors, positives, others = (x.to(exact) for x in (anchors, positives, others))
        similarity = (anchors * positives).sum(1) / temperature
        lse = _LogSumExpOfOthers.apply(anchors, others, own, temperature, dtype)
        return F.softplus(lse - similarity)


def _precisions(x: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """Return the dtype of sums and that of products, which autocast may say."""
    device, exact = x.device.type, torch.promote_types(x.dtype, torch.float32)
    return exact, (torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device)
                   else exact)


def _check(first: Tensor, second: Tensor, everyone: tuple[Tensor, Tensor], temperature: float,
           offset: int) -> None:
    if first.ndim != 2 or first.shape != second.shape or not len(first):
        raise ValueError('both views must have one shape (B, D) with B >= 1, not '
                         f'{tuple(first.shape)} and {tuple(second.shape)}')
    if (everyone[0].shape != everyone[1].shape or everyone[0].shape[1:] != first.shape[1:]
            or not 0 <= offset <= len(everyone[0]) - len(first)):
        raise ValueError(f'{len(first)} rows from {offset} on are not part of gathered views of '
                         f'shapes {tuple(everyone[0].shape)} and {tuple(everyone[1].shape)}')
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, not {temperature}')


class _LogSumExpOfEachOther(torch.autograd.Function):
    """L_i = log Σ_{k ≠ i} exp(z_i·z_k/T), shape (N,), with gradient to z.

    The similarities are symmetric, so z_i's gradient as an anchor and as another's other come
    from one row: Σ_k (P_ik g_i + P_ki g_k) z_k / T, a single product.
    """

    @staticmethod
    def forward(ctx, vectors: Tensor, temperature: float, dtype: torch.dtype):
        own = torch.arange(len(vectors), device=vectors.device)[:, None]
        lse = torch.empty_like(vectors[:, 0])
        for part in _parts(vectors, vectors):
            lse[part] = torch.logsumexp(_logits(vectors[part], vectors, own[part], temperature,
                                                dtype), 1)
        ctx.save_for_backward(vectors, own, lse)
        ctx.temperature, ctx.dtype = temperature, dtype
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        vectors, own, lse = ctx.saved_tensors
        factor = grad / ctx.temperature
        others, result = vectors.to(ctx.dtype), torch.empty_like(vectors)
        for part in _parts(vectors, vectors):
            logits = _logits(vectors[part], vectors, own[part], ctx.temperature, ctx.dtype)
            slope = (logits - lse).exp_().mul_(factor)
            slope.addcmul_(logits.sub_(lse[part, None]).exp_(), factor[part, None])
            result[part] = (slope.to(ctx.dtype) @ others).to(grad.dtype)
        return result, None, None


class _LogSumExpOfOthers(torch.autograd.Function):
    """L_i = log Σ_{k ∉ own_i} exp(z_i·o_k/T), shape (N,), with gradient to both z and o."""

    @staticmethod
    def forward(ctx, anchors: Tensor, others: Tensor, own: Tensor, temperature: float,
                dtype: torch.dtype):
        lse = torch.empty_like(anchors[:, 0])
        for part in _parts(anchors, others):
            logits = _logits(anchors[part], others, own[part], temperature, dtype)
            lse[part] = torch.logsumexp(logits, 1)
        ctx.save_for_backward(anchors, others, own, lse)
        ctx.temperature, ctx.dtype = temperature, dtype
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        anchors, others, own, lse = ctx.saved_tensors
        to_anchors, to_others = torch.empty_like(anchors), torch.zeros_like(others)
        factor = grad / ctx.temperature
        for part in _parts(anchors, others):
            logits = _logits(anchors[part], others, own[part], ctx.temperature, ctx.dtype)
            slope = (torch.exp(logits - lse[part, None]) * factor[part, None]).to(ctx.dtype)
            to_anchors[part] = (slope @ others.to(ctx.dtype)).to(grad.dtype)
            to_others += slope.T @ anchors[part].to(ctx.dtype)
        return to_anchors, to_others, None, None, None


def _parts(anchors: Tensor, others: Tensor) -> list[slice]:
    rows = max(1, math.ceil(_CHUNK_ELEMENTS / len(others)))
    return [slice(i, i + rows) for i in range(0, len(anchors), rows)]


def _logits(anchors: Tensor, others: Tensor, own: Tensor, temperature: float,
            dtype: torch.dtype) -> Tensor:
    """Return similarities / T of shape (n, M) with -inf where an anchor meets its own (n, R)."""
    logits = ((anchors / temperature).to(dtype) @ others.to(dtype).T).to(anchors.dtype)
    return logits.scatter_(1, own, -torch.inf)
