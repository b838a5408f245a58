"""Optimiser and learning rate of a detectron2 recipe."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .yaml_config import Recipe

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def build_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.SGD:
    """SGD with momentum; norm layers have a weight decay of their own."""
    norms = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters()}
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[id(parameter) in norms].append(parameter)
    return torch.optim.SGD(
        [dict(params=groups[False], weight_decay=recipe['SOLVER.WEIGHT_DECAY']),
         dict(params=groups[True], weight_decay=recipe['SOLVER.WEIGHT_DECAY_NORM'])],
        lr=recipe['SOLVER.BASE_LR'], momentum=recipe['SOLVER.MOMENTUM'],
        nesterov=recipe['SOLVER.NESTEROV'])


def learning_rate(recipe: Recipe, iteration: int) -> float:
    """Warm-up from WARMUP_FACTOR, then a factor GAMMA at each of STEPS."""
    rate = recipe['SOLVER.BASE_LR']
    rate *= recipe['SOLVER.GAMMA'] ** sum(iteration >= step for step in recipe['SOLVER.STEPS'])
    warmup = recipe['SOLVER.WARMUP_ITERS']
    if iteration < warmup:
        factor = recipe['SOLVER.WARMUP_FACTOR']
        if recipe['SOLVER.WARMUP_METHOD'] == 'linear':
            factor += (1 - factor) * iteration / warmup
        rate *= factor
    return rate


def clip_gradients(recipe: Recipe, parameters: Iterable[Tensor]) -> None:
    """Clip each value, the norm of each tensor, or the norm of all, as the recipe says."""
    if not recipe['SOLVER.CLIP_GRADIENTS.ENABLED']:
        return
    limit = recipe['SOLVER.CLIP_GRADIENTS.CLIP_VALUE']
    kind = recipe['SOLVER.CLIP_GRADIENTS.NORM_TYPE']
    with_gradient = [p for p in parameters if p.grad is not None]
    how = recipe['SOLVER.CLIP_GRADIENTS.CLIP_TYPE']
    if how == 'value':
        nn.utils.clip_grad_value_(with_gradient, limit)
    elif how == 'full_model':
        nn.utils.clip_grad_norm_(with_gradient, limit, kind)
    else:
        for parameter in with_gradient:
            nn.utils.clip_grad_norm_(parameter, limit, kind)
