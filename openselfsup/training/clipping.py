"""Bounds of gradients: of all together, of each part of a method, or of each tensor."""

import torch
from torch import Tensor, nn

from ..values import ClipBy
from .sharding import norm_of


class Clip:
    """Scale gradients down to a norm, and remember what their norms were before.

    Args:
        module: the algorithm.
        max_norm: largest L2 norm c; gradients of norm n are multiplied by min(1, c / (n + 1e-6)).
            None changes nothing.
        by: what n is the norm of: 'all' gradients; those of each 'part' (backbone, each head:
            DINOv2); of each 'tensor' (DINO).

    Attributes:
        norms: ``grad_norm`` of all, or ``grad_norm_{part}``, scalar tensors, since the last call.
    """

    def __init__(self, module: nn.Module, max_norm: float | None, by: ClipBy = 'all'):
        self.max_norm, self.by = max_norm, by
        self.norms: dict[str, Tensor] = {}
        self.parts = {name: [p for p in part if p.requires_grad]
                      for name, part in parts_of(module).items()}
        if by == 'all':
            self.parts = {'': [p for part in self.parts.values() for p in part]}

    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Bound the gradients; those of a part without any have the norm 0."""
        self.norms = {}
        for name, part in self.parts.items():
            gradients = [p.grad for p in part if p.grad is not None]
            if not part:
                continue
            norm = (norm_of(gradients) if gradients
                    else torch.zeros((), dtype=part[0].dtype, device=part[0].device))
            self.norms[f'grad_norm_{name}'.rstrip('_')] = norm
            if self.max_norm is None:
                continue
            if self.by != 'tensor':
                nn.utils.clip_grads_with_norm_(part, self.max_norm, norm)
                continue
            for parameter in part:
                if parameter.grad is not None:
                    nn.utils.clip_grads_with_norm_(parameter, self.max_norm,
                                                   norm_of([parameter.grad]))


def parts_of(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each part of a method by its name.

    Its children are its parts; of a ModuleDict, such as an encoder, those that it holds. What
    occurs twice belongs to the first.
    """
    children = [(name, child) for name, child in module.named_children()]
    named = [pair for name, child in children for pair in
             (child.items() if isinstance(child, nn.ModuleDict) else [(name, child)])]
    parts: dict[str, list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for name, part in named:
        for parameter in part.parameters():
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                parts.setdefault(name, []).append(parameter)
    own = [p for p in module.parameters() if p.requires_grad and p not in seen]
    return parts | ({'own': own} if own else {})
