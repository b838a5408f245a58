"""Optimisers: torch's SGD, Adam and AdamW, and LARS."""

import inspect
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError, nearest
from ..registry import OPTIMIZERS
from ..values import (
    BelowOne,
    Fraction,
    NotNegative,
    Positive,
    accepts,
    annotations,
    declare,
    fault,
)

logger = logging.getLogger(__name__)

for _optimizer in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
    OPTIMIZERS.register_module(module=_optimizer)
    declare(_optimizer, lr=NotNegative, weight_decay=NotNegative, eps=NotNegative,
            betas=tuple[BelowOne, BelowOne], momentum=NotNegative, dampening=Fraction)


LarsForm = Literal['openselfsup', 'vicregl']


@OPTIMIZERS.register_module()
class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling with momentum (You et al. 2017, arXiv 1708.03888).

    For each tensor w with gradient g, learning rate γ, decay β, momentum μ and buffer v, in the
    form of

    - 'openselfsup', as in the paper: v <- μ v + γ λ (g + β w), λ = η |w| / (|g| + β |w|);
      w <- w - v. The rate of each step stays in the buffer.
    - 'vicregl': v <- μ v + λ (g + β w), λ = η |w| / |g + β w|; w <- w - γ v.

    λ is 1 where |w|, |g| or its divisor is 0, so that tensors that start at zero learn, too.

    Args:
        params: parameters or parameter groups.
        lr: learning rate γ.
        momentum: μ.
        weight_decay: β, an L2 penalty.
        eta: trust coefficient η.
        eps: added to the divisor of λ.
        dampening: share of each further step that does not enter the buffer.
        nesterov: w moves by the step and μ times the buffer (form 'openselfsup' only).
        lars_exclude: None gives tensors of one dimension (biases, norm layers) the rate 1 and no
            decay; True gives all tensors of a group the rate 1, and the decay that is set;
            False treats all alike.
        form: which equations.

    Raises:
        ValueError: settings are impossible together.
    """

    def __init__(self, params: Iterable, lr: NotNegative, momentum: NotNegative = 0.9,
                 weight_decay: NotNegative = 0.0, eta: Positive = 0.001,
                 eps: NotNegative = 0.0, dampening: Fraction = 0.0, nesterov: bool = False,
                 lars_exclude: bool | None = None, form: LarsForm = 'openselfsup'):
        if lr < 0 or momentum < 0 or weight_decay < 0:
            raise ValueError('lr, momentum and weight_decay of LARS must not be negative')
        if nesterov and (momentum <= 0 or dampening != 0 or form != 'openselfsup'):
            raise ValueError("Nesterov's momentum of LARS needs momentum, no dampening and the "
                             "form 'openselfsup'")
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay,
                                      eta=eta, eps=eps, dampening=dampening,
                                      nesterov=nesterov, lars_exclude=lars_exclude, form=form))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch's recomputes
        """Make one step with the gradients as they are."""
        for group in self.param_groups:
            for w in group['params']:
                if w.grad is not None:
                    self._update(w, w.grad, group)

    def _update(self, w: Tensor, gradient: Tensor, group: dict) -> None:
        flat = group['lars_exclude'] is None and w.dim() <= 1
        decay = 0.0 if flat else group['weight_decay']
        step = gradient + decay * w
        if not (flat or group['lars_exclude']):
            step = step * self._local_rate(w, gradient, step, group)
        inside = group['form'] == 'openselfsup'
        if inside:
            step = step * group['lr']
        state = self.state[w]
        if 'momentum_buffer' not in state:
            velocity = state['momentum_buffer'] = step.clone()
        else:
            velocity = state['momentum_buffer']
            velocity.mul_(group['momentum']).add_(step, alpha=1 - group['dampening'])
        if group['nesterov']:
            velocity = step + group['momentum'] * velocity
        w.sub_(velocity, alpha=1 if inside else group['lr'])

    @staticmethod
    def _local_rate(w: Tensor, gradient: Tensor, decayed: Tensor, group: dict) -> Tensor:
        """Return λ, a scalar tensor; no number leaves the device."""
        w_norm, g_norm, divisor = w.norm(), gradient.norm(), decayed.norm()
        if group['form'] == 'openselfsup':
            divisor = g_norm + group['weight_decay'] * w_norm
        rate = group['eta'] * w_norm / (divisor + group['eps'])
        return torch.where((w_norm > 0) & (g_norm > 0) & (divisor > 0), rate, 1.0)


def build_optimizer(module: nn.Module, cfg: dict, lr: float) -> torch.optim.Optimizer:
    """Build the optimiser over the trainable parameters of a module.

    Its groups say whose parameters they have (``param_names``, as torch's): by these names a run
    that goes on finds their momenta again, however they are grouped by then.

    Args:
        module: the algorithm; parameters without gradient (key encoder) are left out.
        cfg: ``type``, its arguments, ``decay_norm_and_bias`` (default True; False takes biases
            and norm layers out of the weight decay), ``paramwise_options``, see
            :func:`parameter_groups`, ``layer_decay``, see :func:`layer_factors`, and
            ``weight_decay_end``, which the run's steps heed.
        lr: learning rate after scaling; replaces the one in ``cfg``.

    Raises:
        UserError: nothing to train, or settings that are impossible.
    """
    cfg = {**cfg, 'lr': lr}
    decay_all = cfg.pop('decay_norm_and_bias', True)
    options = cfg.pop('paramwise_options', None)
    layer_decay = cfg.pop('layer_decay', None)
    cfg.pop('weight_decay_end', None)
    paced = tuple(getattr(module, 'rate_factors', dict)())
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        raise UserError('the model has no trainable parameter', where='model')
    if layer_decay is not None or paced:
        groups = parameter_groups(trainable, options or {}, cfg, decay_all)
        groups = paced_groups(trainable, groups, layer_factors(trainable, layer_decay), paced)
    elif options:
        groups = parameter_groups(trainable, options, cfg, decay_all)
    elif decay_all:
        groups = [dict(params=[*trainable.values()])]
    else:
        flat = [p for p in trainable.values() if p.dim() <= 1]
        groups = [dict(params=[p for p in trainable.values() if p.dim() > 1]),
                  dict(params=flat, weight_decay=0.0)]
    try:
        optimizer: torch.optim.Optimizer = OPTIMIZERS.build({**cfg, 'params': groups})
    except ValueError as error:  # settings that do not go together, such as nesterov
        raise UserError(str(error), where='optimizer') from None
    names = {id(p): name for name, p in trainable.items()}
    for group in optimizer.param_groups:
        group['param_names'] = [names[id(p)] for p in group['params']]
    return optimizer


def parameter_groups(parameters: Mapping[str, nn.Parameter],
                     options: Mapping[str, Mapping[str, Any]], cfg: Mapping[str, Any],
                     decay_all: bool = True) -> list[dict[str, Any]]:
    """Return a group for each parameter, with the options of the patterns that find its name.

    Args:
        parameters: by their full names.
        options: regular expression -> options. Every expression is searched for in the name, in
            order, and what a later one sets overrides an earlier one. ``x_mult`` sets the
            argument ``x`` to that multiple of the optimiser's (``lr_mult`` that of every step's
            rate), any other option is set as it is.
        cfg: the optimiser's ``type`` and arguments.
        decay_all: whether norm layers and biases decay where no pattern says otherwise.

    Raises:
        UserError: an option is none of this optimiser.
    """
    cls = OPTIMIZERS.get(cfg['type'])
    faults = paramwise_faults(cls, options)
    if faults:
        raise UserError('; '.join(f"'{path[0]}': {what}" for path, what, _ in faults),
                        where='optimizer.paramwise_options', nearest=faults[0][2])
    defaults = {name: parameter.default
                for name, parameter in inspect.signature(cls).parameters.items()} | dict(cfg)
    groups = []
    for name, parameter in parameters.items():
        group: dict[str, Any] = {}
        if not decay_all and parameter.dim() <= 1:
            group['weight_decay'] = 0.0
        for pattern, values in options.items():
            if not re.search(pattern, name):
                continue
            for key, value in values.items():
                value = tuple(value) if isinstance(value, list) else value  # groups are compared
                base = key.removesuffix('_mult')
                if key == 'lr_mult':
                    group[key] = value
                else:
                    group[base] = defaults[base] * value if base != key else value
        groups.append(dict(group, params=[parameter]))
    for pattern in options:
        if not any(re.search(pattern, name) for name in parameters):
            logger.warning("optimizer.paramwise_options: '%s' is found in the name of no "
                           'parameter', pattern)
    return groups


_BLOCK = re.compile(r'(?:^|\.)backbone\.(?:.*\.)?blocks\.(\d+)\.')
_LAST_NORM = re.compile(r'(?:^|\.)backbone\.(?!.*\bpatch_embed\.)(?:.*\.)?(?:fc_)?norm\.')


def layer_factors(names: Iterable[str], decay: float | None) -> dict[str, float]:
    """Return factors r^(depth + 1 - i) on the learning rates of a ViT's layers (BEiT, DINOv2).

    i is 0 for the embedding of patches, positions and tokens, n + 1 for block n, depth + 1 for
    the last norm; heads and all else outside the backbone have the factor 1.

    Args:
        names: of the parameters of a method, ViT blocks being called ``backbone. ... .blocks.n``.
        decay: r; None for factors of 1.

    Raises:
        UserError: there are no such blocks.
    """
    names = list(names)
    if decay is None:
        return dict.fromkeys(names, 1.)
    blocks = {name: int(found[1]) for name in names if (found := _BLOCK.search(name))}
    if not blocks:
        raise UserError('layer_decay is for the blocks of a ViT, which this backbone lacks',
                        where='optimizer.layer_decay', expected='None, or a ViT')
    depth = max(blocks.values()) + 1
    layers = {name: blocks[name] + 1 if name in blocks
              else depth + 1 if _LAST_NORM.search(name) or not re.search(r'(^|\.)backbone\.', name)
              else 0 for name in names}
    return {name: decay ** (depth + 1 - layer) for name, layer in layers.items()}


def paced_groups(names: Iterable[str], groups: Iterable[dict[str, Any]],
                 factors: Mapping[str, float], paced: tuple[str, ...]) -> list[dict[str, Any]]:
    """Join groups of one parameter each into those that differ.

    Args:
        names: of the parameters, in the order of ``groups``.
        groups: of one parameter each.
        factors: on the learning rate, by names; they multiply a group's ``lr_mult``.
        paced: beginnings of names, see ``rate_factors`` of
            :class:`openselfsup.models.method.Method`; the longest that fits is a group's
            ``paced``.
    """
    joined: dict[tuple, dict[str, Any]] = {}
    for name, group in zip(names, groups):
        group['lr_mult'] = group.get('lr_mult', 1.0) * factors[name]
        group['paced'] = max((p for p in paced if name.startswith(p)), key=len, default='')
        params = group.pop('params')
        key = tuple(sorted(group.items()))
        joined.setdefault(key, dict(group, params=[]))['params'] += params
    return [*joined.values()]


def paramwise_faults(cls: type, options: Mapping[str, Any]
                     ) -> list[tuple[tuple[str, ...], str, str | None]]:
    """Return what is wrong with ``paramwise_options``: the keys to it, what, the nearest choice.

    Args:
        cls: class of the optimiser.
        options: see :func:`parameter_groups`.
    """
    hints = {name: hint for name, hint in annotations(cls).items() if name not in ('params', 'lr')}
    hints |= {f'{name}_mult': NotNegative for name in (*hints, 'lr')
              if accepts(0.5, hints.get(name, float))}
    found: list[tuple[tuple[str, ...], str, str | None]] = []
    for pattern, values in options.items():
        try:
            re.compile(pattern)
        except re.error as error:
            found.append(((pattern,), f'no regular expression: {error}', None))
        if not isinstance(values, Mapping):
            found.append(((pattern,), f'must be a dict of options, not {values!r}', None))
            continue
        for key, value in values.items():
            if key not in hints:
                found.append(((pattern, key), f"{cls.__name__} has no option '{key}'",
                              nearest(str(key), hints)))
            elif said := fault(value, hints[key]):
                found.append(((pattern, key), f'{key} {said}', None))
    return found
