"""Precise batch norm: statistics of the final weights instead of a trail of older ones."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ... import distributed


@torch.no_grad()
def update_statistics(model: nn.Module, batches: Iterable[Any],
                      forward: Callable[[Any], Any]) -> int:
    """Set the running statistics of batch norms to their mean over batches, and over ranks.

    Args:
        model: in training mode; layers in evaluation mode and frozen ones stay.
        batches: data of as many batches as should count.
        forward: runs all batch norms on one of them.

    Returns:
        The number of batch norms; 0 means that nothing was run.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
             and m.training and m.track_running_stats]
    if not norms:
        return 0
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
    for batch in batches:
        forward(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None:
                statistic.copy_(distributed.all_reduce_mean(statistic))
    return len(norms)
