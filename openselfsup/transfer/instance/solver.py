"""Optimiser and learning rate of a detectron2 config."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...training.optimizers import layer_factors, paced_groups, parameter_groups
from .yaml_config import DetectionConfig

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def build_optimizer(config: DetectionConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, norm layers having a weight decay of their own; or AdamW."""
    if config['SOLVER.OPTIMIZER'] == 'AdamW':
        return _adamw(config, model)
    norms = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters()}
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[id(parameter) in norms].append(parameter)
    return torch.optim.SGD(
        [dict(params=groups[False], weight_decay=config['SOLVER.WEIGHT_DECAY']),
         dict(params=groups[True], weight_decay=config['SOLVER.WEIGHT_DECAY_NORM'])],
        lr=config['SOLVER.BASE_LR'], momentum=config['SOLVER.MOMENTUM'],
        nesterov=config['SOLVER.NESTEROV'])


def _adamw(config: DetectionConfig, model: nn.Module) -> torch.optim.AdamW:
    """AdamW as ViTDet has it: lower layers of a ViT learn slower; norms do not decay.

    Raises:
        UserError: there are no layers of a ViT.
    """
    named = {name.replace('backbone.fpn.', 'fpn.'): p  # not a part of the ViT
             for name, p in model.named_parameters() if p.requires_grad}
    decay, rate = config['SOLVER.LAYER_DECAY'], config['SOLVER.BASE_LR']
    settings = dict(type='AdamW', lr=rate, weight_decay=config['SOLVER.WEIGHT_DECAY'])
    groups = parameter_groups(named, {r'pos_embed|_token$': dict(weight_decay=0.)}, settings,
                              decay_all=False)
    factors = layer_factors(named, decay if decay != 1 else None)
    return torch.optim.AdamW(paced_groups(named, groups, factors, ()), lr=rate,
                             weight_decay=config['SOLVER.WEIGHT_DECAY'])


def learning_rate(config: DetectionConfig, iteration: int) -> float:
    """Warm-up from WARMUP_FACTOR, then a factor GAMMA at each of STEPS."""
    rate = config['SOLVER.BASE_LR']
    rate *= config['SOLVER.GAMMA'] ** sum(iteration >= step for step in config['SOLVER.STEPS'])
    warmup = config['SOLVER.WARMUP_ITERS']
    if iteration < warmup:
        factor = config['SOLVER.WARMUP_FACTOR']
        if config['SOLVER.WARMUP_METHOD'] == 'linear':
            factor += (1 - factor) * iteration / warmup
        rate *= factor
    return rate


def clip_gradients(config: DetectionConfig, parameters: Iterable[Tensor]) -> None:
    """Clip each value, the norm of each tensor, or the norm of all, as the config says."""
    if not config['SOLVER.CLIP_GRADIENTS.ENABLED']:
        return
    limit = config['SOLVER.CLIP_GRADIENTS.CLIP_VALUE']
    kind = config['SOLVER.CLIP_GRADIENTS.NORM_TYPE']
    with_gradient = [p for p in parameters if p.grad is not None]
    how = config['SOLVER.CLIP_GRADIENTS.CLIP_TYPE']
    if how == 'value':
        nn.utils.clip_grad_value_(with_gradient, limit)
    elif how == 'full_model':
        nn.utils.clip_grad_norm_(with_gradient, limit, kind)
    else:
        for parameter in with_gradient:
            nn.utils.clip_grad_norm_(parameter, limit, kind)
