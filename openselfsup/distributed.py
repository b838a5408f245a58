"""Rank, world and collectives. Every collective is an identity at world size 1.

DistributedDataParallel averages gradients over ranks, so a loss that is the mean over
the rows of a rank needs nothing from here to equal one process with all the rows. A loss
that looks across ranks gathers with :func:`all_gather_with_grad`.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Return whether more than one process takes part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the global rank of this process, 0 if alone."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of processes, 1 if alone."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Return whether this process writes logs, pictures and checkpoints."""
    return rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        dist.barrier()


def broadcast_object(value: Any, source: int = 0) -> Any:
    """Return rank ``source``'s ``value``, which must be picklable."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, source)
    return values[0]


def all_gather(x: Tensor) -> Tensor:
    """Concatenate equally shaped ``x`` of all ranks along dim 0, without gradient.

    Args:
        x: tensor of shape (B, ...), the same shape on every rank.

    Returns:
        Tensor of shape (world * B, ...), in the order of the ranks.
    """
    if not is_distributed():
        return x.detach()
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


class _GatherWithGrad(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        return all_gather(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        # Every rank's loss depends on every rank's rows: sum what they all ask of ours.
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad[rank() * ctx.rows:(rank() + 1) * ctx.rows]


def all_gather_with_grad(x: Tensor) -> Tensor:
    """Like :func:`all_gather`; the gradient of a rank's rows is the sum over all ranks."""
    return _GatherWithGrad.apply(x) if is_distributed() else x


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over ranks, without gradient; ``x`` is left as it is."""
    x = x.detach()
    if is_distributed():
        x = x.clone()
        dist.all_reduce(x)
    return x


def all_reduce_mean(x: Tensor) -> Tensor:
    """Return the mean of ``x`` over ranks, without gradient; ``x`` is left as it is."""
    return all_reduce_sum(x) / world_size()


def all_reduce_max(x: Tensor) -> Tensor:
    """Return the largest ``x`` over ranks, without gradient; ``x`` is left as it is."""
    x = x.detach()
    if is_distributed():
        x = x.clone()
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def broadcast(x: Tensor, source: int = 0) -> Tensor:
    """Return rank ``source``'s ``x``, without gradient; ``x`` is left as it is."""
    x = x.detach()
    if is_distributed():
        x = x.clone()
        dist.broadcast(x, source)
    return x


def share_running_statistics(network: torch.nn.Module) -> None:
    """Give all ranks the running statistics that a network's batch norms have on rank 0."""
    for name, statistic in network.named_buffers():
        if name.endswith(('running_mean', 'running_var')):
            statistic.copy_(broadcast(statistic))
