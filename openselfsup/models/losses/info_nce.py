"""InfoNCE against a queue without ever forming the N x K logits.

InfoNCE (van den Oord et al. 2018, arXiv 1807.03748; MoCo, arXiv 1911.05722, eq. 1) of a
query q with positive k⁺ and negatives k_1 ... k_K at temperature T is

    loss = -log [ e^s / (e^s + Σ_j e^(q·k_j/T)) ] = -log σ(s - L),
    s = q·k⁺/T,    L = log Σ_j e^(q·k_j/T).

L is the log-sum-exp of attention with keys = values = negatives and scale 1/T, and that
attention's output O = Σ_j softmax_j(q·k_j/T) k_j is T·∂L/∂q. One fused attention call in the
forward pass therefore gives the loss and all that backward needs: with p = 1 - σ(s - L), the
total probability of the negatives,

    ∂loss/∂q = p/T (O - k⁺),    ∂loss/∂k⁺ = -p/T q.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

REDUCTIONS = ('mean', 'weighted_mean', 'none')

_CHUNK_ELEMENTS = 1 << 22  # logits of the chunked forms that exist at a time
_SAMPLE = 512  # keys among which a row's largest logit is looked for
_SAFE_EXPONENT = 60  # a sum of as many e^60 as there are keys is finite in float32 and bfloat16
_BUSY_ROWS = 8192  # fewer query rows than this leave a GPU idle


def info_nce(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float,
             weights: Tensor | None = None, reduction: str = 'mean') -> Tensor:
    """Contrast every query with its positive against negatives that all queries share.

    Everything is computed in float32 (float64 for float64 inputs), whatever the autocast
    state, except that under autocast the product with the negatives is taken in autocast's
    dtype. Gradients flow to ``query`` and ``positive``, none to ``negatives``, which may be
    overwritten before backward.

    Args:
        query: L2-normalised tensor of shape (N, D), N >= 0.
        positive: L2-normalised tensor of shape (N, D), the positive of each query.
        negatives: L2-normalised tensor of shape (K, D), K >= 1.
        temperature: T > 0.
        weights: tensor of shape (N,) with values >= 0, 1 for all rows if None. A row of
            weight 0 has gradient 0, and on a CPU costs nothing.
        reduction: 'mean' is mean(w·CE) over the N rows (as published for PLM), 'weighted_mean'
            is Σ w·CE / Σ w (0 if all weights are 0), 'none' gives the N values w·CE.

    Returns:
        Scalar tensor, 0 without rows, or shape (N,) for 'none'.

    Raises:
        ValueError: shapes do not fit, there are no negatives, the temperature is not positive
            or the reduction is unknown.
    """
    _check(query, positive, negatives, temperature, weights, reduction)
    device = query.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else _at_least_float32(query).dtype
    with torch.autocast(device, enabled=False):
        query, positive = _at_least_float32(query), _at_least_float32(positive)
        if weights is None:
            losses = _cross_entropy(query, positive, negatives, temperature, dtype)
            return losses if reduction == 'none' else _mean(losses)
        if _can_leave_rows_out(query):
            rows = weights.nonzero()[:, 0]
            some = _cross_entropy(query[rows], positive[rows], negatives, temperature, dtype)
            losses = some.new_zeros(len(query)).index_copy(0, rows, some)
        else:
            losses = _cross_entropy(query, positive, negatives, temperature, dtype)
        weights = weights.to(losses.dtype)
        losses = weights * losses
        if reduction == 'none':
            return losses
        if reduction == 'mean':
            return _mean(losses)
        return losses.sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def _check(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float,
           weights: Tensor | None, reduction: str) -> None:
    if query.ndim != 2 or query.shape != positive.shape:
        raise ValueError('query and positive must have one shape (N, D), not '
                         f'{tuple(query.shape)} and {tuple(positive.shape)}')
    if negatives.ndim != 2 or negatives.shape[1] != query.shape[1] or not len(negatives):
        raise ValueError(f'negatives must have shape (K, {query.shape[1]}) with K >= 1, not '
                         f'{tuple(negatives.shape)}')
    if weights is not None and weights.shape != query.shape[:1]:
        raise ValueError(f'weights must have shape ({len(query)},), not {tuple(weights.shape)}')
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, not {temperature}')
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not '{reduction}'")


def _can_leave_rows_out(query: Tensor) -> bool:
    """Return whether rows may be counted: on a GPU that would make the host wait for it."""
    return query.device.type == 'cpu'


def _cross_entropy(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float,
                   dtype: torch.dtype) -> Tensor:
    """Return -log σ(s - L) of each row, (N,), with the negatives' product in ``dtype``."""
    similarity = (query * positive).sum(-1) / temperature
    negative = _LogSumExp.apply(query, negatives, temperature, dtype)
    return -F.logsigmoid(similarity - negative)


def _mean(losses: Tensor) -> Tensor:
    """Return the mean of losses (N,), 0 with gradient 0 where N = 0."""
    return losses.mean() if len(losses) else losses.sum()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _LogSumExp(torch.autograd.Function):
    """L_i = log Σ_j exp(q_i·k_j/T), shape (N,), with gradient O_i/T to q_i alone."""

    @staticmethod
    def forward(ctx, query: Tensor, negatives: Tensor, temperature: float, dtype: torch.dtype):
        output, lse = attend((query / temperature).to(dtype), negatives.to(dtype))
        ctx.temperature = temperature
        ctx.save_for_backward(output)
        return lse.to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        output, = ctx.saved_tensors
        return (grad / ctx.temperature)[:, None] * output, None, None, None


def attend(query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention whose values are its keys, with its log-sum-exp.

    This is the one place that knows torch's fused operators. They are private (the public
    ``scaled_dot_product_attention`` does not return the log-sum-exp), so the path is chosen by
    what this torch, device and dtype offer, with :func:`chunked_attend` where nothing does.
    In bf16 on a processor without AMX, :func:`shifted_attend` is faster than any of them.

    Args:
        query: tensor of shape (N, D), with the temperature in it: logits are query·key.
        keys: tensor of shape (K, D), K >= 1, of the same dtype and device.

    Returns:
        Output of shape (N, D) in the inputs' dtype and log-sum-exp of shape (N,), natural
        logarithm, in float32 (float64 for float64 inputs).
    """
    if _shifting_pays(query) and _largest_logit(query, keys) < _SAFE_EXPONENT / 2:
        return shifted_attend(query, keys)
    operator = _fused_operator(query)
    if operator is None or not len(query):
        return chunked_attend(query, keys)
    rows, dim = query.shape
    heads = _heads(query, keys)
    if query.is_cuda:  # the kernels want head dimensions that are multiples of 8
        query, keys = F.pad(query, (0, -dim % 8)), F.pad(keys, (0, -dim % 8))
    split = keys.contiguous().view(1, heads, len(keys) // heads, -1)
    repeated = query.expand(1, heads, -1, -1).contiguous()
    output, lse = operator(repeated, split)  # 1 x H x N x D, 1 x H x (N or more)
    return _merge(output[0, ..., :dim], lse[0, :, :rows])


def _fused_operator(query: Tensor):
    """Return f(query, keys) -> (output, lse) on 1 x H x N x D tensors, or None."""
    aten = torch.ops.aten
    half = query.dtype in (torch.bfloat16, torch.float16)
    if query.device.type == 'cpu' and hasattr(aten, '_scaled_dot_product_flash_attention_for_cpu'):
        return lambda q, k: aten._scaled_dot_product_flash_attention_for_cpu(q, k, k, scale=1.)
    if not query.is_cuda:
        return None
    if (half and query.shape[1] <= 256 and torch.cuda.get_device_capability(query.device) >= (8, 0)
            and hasattr(aten, '_scaled_dot_product_flash_attention')):
        return lambda q, k: aten._scaled_dot_product_flash_attention(q, k, k, scale=1.)[:2]
    if (query.dtype in (torch.float32, torch.float16)
            and hasattr(aten, '_scaled_dot_product_efficient_attention')):
        return lambda q, k: aten._scaled_dot_product_efficient_attention(
            q, k, k, None, compute_log_sumexp=True, scale=1.)[:2]
    return None


def _heads(query: Tensor, keys: Tensor) -> int:
    """Return into how many heads to split the keys so that few rows occupy a whole GPU."""
    heads = 1
    while (query.is_cuda and len(query) * heads < _BUSY_ROWS and len(keys) % (2 * heads) == 0
           and len(keys) // (2 * heads) >= 256):
        heads *= 2
    return heads


def _merge(output: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """Join attentions over disjoint sets of keys: H x N x D and H x N to N x D and N."""
    if len(output) == 1:
        return output[0], lse[0]
    total = torch.logsumexp(lse, 0)
    share = torch.exp(lse - total)  # of the probability that each head holds
    return (share[..., None] * output).sum(0).to(output.dtype), total


def chunked_attend(query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the same as :func:`attend` with plain operators, some rows at a time."""
    output = torch.empty_like(query)
    lse = query.new_empty(len(query), dtype=torch.promote_types(query.dtype, torch.float32))
    rows = max(1, math.ceil(_CHUNK_ELEMENTS / len(keys)))
    for i in range(0, len(query), rows):
        part = slice(i, i + rows)
        logits = (query[part] @ keys.T).to(lse.dtype)  # rows x K
        lse[part] = torch.logsumexp(logits, 1)
        output[part] = torch.exp(logits - lse[part, None]).to(keys.dtype) @ keys
    return output, lse


def shifted_attend(query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the same as :func:`attend` in bf16, in a few passes over each chunk of logits.

    Rounded to bf16, a logit errs by up to 1/256 of itself. So the product starts at -m_i, which
    shifts the logits of row i to about 0 where they are largest: those that count are then as
    exact as in the fused operators, and their exponentials need no maximum first. Any m_i will do
    as long as nothing overflows: it is the largest logit of a sample of the keys.

    Args:
        query: bf16 tensor of shape (N, D), with logits of at most ±30.
        keys: bf16 tensor of shape (K, D).

    Returns:
        As :func:`attend`, with the output in float32.
    """
    shift = (query @ keys[::math.ceil(len(keys) / _SAMPLE)].T).amax(1)  # N
    output = torch.empty_like(query, dtype=torch.float32)
    lse = torch.empty_like(shift, dtype=torch.float32)
    rows = max(1, math.ceil(_CHUNK_ELEMENTS / 2 / len(keys)))
    memory = keys.new_empty(min(rows, len(query)), len(keys))
    groups = math.gcd(len(keys), 256)  # a sum is rounded to bf16: take many, of a few terms each
    for i in range(0, len(query), rows):
        part = slice(i, i + rows)
        out = memory[:len(query[part])]
        terms = torch.addmm(-shift[part, None], query[part], keys.T, out=out).exp_()  # rows x K
        total = terms.unflatten(1, (groups, -1)).sum(-1).float().sum(-1)
        output[part] = (terms @ keys).float() / total[:, None]
        lse[part] = total.log() + shift[part]
    return output, lse


def _shifting_pays(query: Tensor) -> bool:
    """Return whether bf16 products, but not the fused operator, are fast on this processor."""
    if query.device.type != 'cpu' or query.dtype != torch.bfloat16:
        return False
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def _largest_logit(query: Tensor, keys: Tensor) -> float:
    """Return a bound of all |query·key|, 0 without rows."""
    if not len(query):
        return 0.0
    return float(query.norm(dim=1).max()) * float(keys.norm(dim=1).max())
