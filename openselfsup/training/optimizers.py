"""Optimisers: torch's SGD, Adam and AdamW, and LARS."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..registry import OPTIMIZERS
from ..values import BelowOne, Fraction, NotNegative, Positive, declare

for _optimizer in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
    OPTIMIZERS.register_module(module=_optimizer)
    declare(_optimizer, lr=NotNegative, weight_decay=NotNegative, eps=NotNegative,
            betas=tuple[BelowOne, BelowOne], momentum=NotNegative, dampening=Fraction)


@OPTIMIZERS.register_module()
class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling with momentum (You et al. 2017, arXiv 1708.03888).

    For each weight tensor w with gradient g: local rate eta * |w| / (|g| + decay * |w|);
    v <- momentum * v + lr * rate * (g + decay * w); w <- w - v. Tensors of one dimension
    (biases, norm layers) get rate 1 and no decay, as is usual in self-supervised training.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        momentum: momentum factor.
        weight_decay: L2 penalty.
        eta: trust coefficient.
        eps: guards the division.
    """

    def __init__(self, params: Iterable, lr: NotNegative, momentum: NotNegative = 0.9,
                 weight_decay: NotNegative = 0.0, eta: Positive = 0.001,
                 eps: NotNegative = 1e-8):
        if lr < 0 or momentum < 0 or weight_decay < 0:
            raise ValueError('lr, momentum and weight_decay of LARS must not be negative')
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay,
                                      eta=eta, eps=eps))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch's recomputes
        """Make one step with the gradients as they are."""
        for group in self.param_groups:
            for w in group['params']:
                if w.grad is not None:
                    self._update(w, w.grad, group)

    def _update(self, w: Tensor, gradient: Tensor, group: dict) -> None:
        if w.dim() > 1:
            w_norm, g_norm = w.norm(), gradient.norm()
            decay = group['weight_decay']
            rate = group['eta'] * w_norm / (g_norm + decay * w_norm + group['eps'])
            rate = torch.where((w_norm > 0) & (g_norm > 0), rate, torch.ones_like(rate))
            gradient = (gradient + decay * w) * rate
        state = self.state[w]
        if 'momentum_buffer' not in state:
            state['momentum_buffer'] = torch.zeros_like(w)
        velocity = state['momentum_buffer']
        velocity.mul_(group['momentum']).add_(gradient, alpha=group['lr'])
        w.sub_(velocity)


def build_optimizer(module: nn.Module, cfg: dict, lr: float) -> torch.optim.Optimizer:
    """Build the optimiser over the trainable parameters of a module.

    Args:
        module: the algorithm; parameters without gradient (key encoder) are left out.
        cfg: ``type``, its arguments, and ``decay_norm_and_bias`` (default True; False
            takes biases and norm layers out of the weight decay).
        lr: learning rate after scaling; replaces the one in ``cfg``.
    """
    cfg = dict(cfg)
    decay_all = cfg.pop('decay_norm_and_bias', True)
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise UserError('the model has no trainable parameter', where='model')
    groups: list[dict[str, Any]] = [dict(params=trainable)]
    if not decay_all:
        flat = [p for p in trainable if p.dim() <= 1]
        groups = [dict(params=[p for p in trainable if p.dim() > 1]),
                  dict(params=flat, weight_decay=0.0)]
    try:
        return OPTIMIZERS.build({**cfg, 'lr': lr, 'params': groups})
    except ValueError as error:  # settings that do not go together, such as nesterov
        raise UserError(str(error), where='optimizer') from None
