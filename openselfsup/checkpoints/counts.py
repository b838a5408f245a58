"""Counting the parameters of a model or of a checkpoint, part by part."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn

from .backbone import prefix_of_backbone
from .names import recorded_prefix, weights_of
from .published import training_state_from_published

# What a checkpoint's names tell about tensors that are no parameters.
BUFFERS = re.compile(r'(running_mean|running_var|num_batches_tracked)$'
                     r'|^(concepts\.)?queue|^memory_bank\.|^(patch_)?centre\.|^(seed|labels|loss_weight)$')
# Networks that follow another one.
FOLLOWING = ('encoder_k.', 'target_net.', 'teacher.', 'gram.teacher.')


class Entry(NamedTuple):
    """One tensor: the part it belongs to, its number of elements, and what it is."""

    part: str
    size: int
    is_parameter: bool
    trainable: bool


def tensors_of(module: nn.Module) -> list[Entry]:
    """Return the parameters and buffers of a module."""
    prefix = prefix_of_backbone(module) if hasattr(module, 'backbone') else None
    return [*(Entry(part_of(name, prefix), p.numel(), True, p.requires_grad)
              for name, p in module.named_parameters()),
            *(Entry(part_of(name, prefix), b.numel(), False, False)
              for name, b in module.named_buffers())]


def tensors_of_checkpoint(checkpoint: Mapping[str, Any]) -> list[Entry]:
    """Return the tensors of a checkpoint, each told to be a parameter or not by its name.

    Which ones learn the optimiser says, where it names them.
    """
    learning = _names_in_optimizer(checkpoint)
    state, prefix = weights_of(checkpoint), recorded_prefix(checkpoint)
    if any(name.startswith(('encoder_q.0.', 'online_net.0.')) for name in state):
        state = training_state_from_published(state)  # has its backbone twice
    return [Entry(part_of(name, prefix), value.numel(), name in learning or is_parameter,
                  name in learning if learning
                  else is_parameter and not name.startswith(FOLLOWING))
            for name, value in state.items() for is_parameter in [not BUFFERS.search(name)]]


def _names_in_optimizer(checkpoint: Mapping[str, Any]) -> set[str]:
    optimizer = checkpoint.get('optimizer')
    groups = optimizer.get('param_groups') if isinstance(optimizer, Mapping) else None
    return {name for group in groups or () for name in group.get('param_names') or ()}


def part_of(name: str, backbone: str | None = None) -> str:
    """Return the part a tensor belongs to: the backbone, two levels below an encoder, else one."""
    if backbone and name.startswith(backbone):
        return backbone.removesuffix('.')
    levels = name.split('.')
    in_encoder = levels[0].startswith(('encoder', 'online_net', 'target_net'))
    return '.'.join(levels[:2] if in_encoder else levels[:1])


def table(entries: Iterable[Entry]) -> str:
    """Return the counts of every part, and their sums, as aligned text."""
    parts: dict[str, list[int]] = {}
    for entry in entries:
        counts = parts.setdefault(entry.part, [0, 0, 0])
        counts[0] += entry.size * entry.is_parameter
        counts[1] += entry.size * entry.trainable
        counts[2] += entry.size * (not entry.is_parameter)
    rows = list(parts.items())
    for title, prefix in (('query encoder', 'encoder_q.'), ('key encoder', 'encoder_k.')):
        if chosen := [counts for name, counts in parts.items() if name.startswith(prefix)]:
            rows.append((title, [sum(column) for column in zip(*chosen)]))
    rows.append(('total', [sum(counts[i] for counts in parts.values()) for i in (0, 1, 2)]))
    width = max(len(name) for name, _ in rows)
    lines = [f"{'part':<{width}} {'parameters':>14} {'trainable':>14} {'buffers':>14}"]
    for i, (name, counts) in enumerate(rows):
        if i == len(parts):
            lines.append('-' * len(lines[0]))
        lines.append(f'{name:<{width}} ' + ' '.join(f'{count:>14,}' for count in counts))
    return '\n'.join(lines)
