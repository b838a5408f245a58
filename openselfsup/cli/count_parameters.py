"""Count the parameters of a model, part by part.

Example:
    openselfsup count-parameters PLM_SSL/r18_bs256_ep200
    openselfsup count-parameters resnet50

MODEL is a config (the algorithm it describes is built), a checkpoint of any kind, or the
name of a backbone: resnet18, resnet34, resnet50, resnet101, resnext50.
"""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..checkpoints import load, training_state_from_published, weights_of
from ..errors import UserError, nearest
from .arguments import add_overrides

BACKBONES = {'resnet18': ('ResNet', 18), 'resnet34': ('ResNet', 34), 'resnet50': ('ResNet', 50),
             'resnet101': ('ResNet', 101), 'resnext50': ('ResNeXt', 50)}
# What a checkpoint's names tell about tensors that are no parameters.
BUFFERS = re.compile(r'(running_mean|running_var|num_batches_tracked)$|^queue')


class Entry(NamedTuple):
    """One tensor: its name, its number of elements, and what it is."""

    name: str
    size: int
    is_parameter: bool
    trainable: bool


def entries_of(model: str, options: list[str]) -> list[Entry]:
    """Return the tensors of a config's algorithm, a checkpoint or a named backbone.

    Raises:
        UserError: ``model`` is none of these.
    """
    if model in BACKBONES or model.endswith('.py'):
        module = _built(model, options)
        parameters = [Entry(name, p.numel(), True, p.requires_grad)
                      for name, p in module.named_parameters()]
        return parameters + [Entry(name, b.numel(), False, False)
                             for name, b in module.named_buffers()]
    if not Path(model).exists() and '.' not in Path(model).name:
        raise UserError(f"'{model}' is neither a file nor a backbone",
                        expected='a config, a checkpoint, or one of ' + ', '.join(BACKBONES),
                        nearest=nearest(model, BACKBONES))
    state = weights_of(load(model))
    if any(name.startswith('encoder_q.0.') for name in state):  # has its backbone twice
        state = training_state_from_published(state)
    return [Entry(name, value.numel(), not BUFFERS.search(name),
                  not BUFFERS.search(name) and not name.startswith('encoder_k.'))
            for name, value in state.items()]


def _built(model: str, options: list[str]):
    if model in BACKBONES:
        from .. import registry
        family, depth = BACKBONES[model]
        return registry.BACKBONES.build(dict(type=family, depth=depth))
    from ..engine.config import load_config
    from ..registry import ALGORITHMS
    return ALGORITHMS.build(load_config(model, options).model)


def part_of(name: str) -> str:
    """Return the part a tensor belongs to: two levels below an encoder, else one."""
    levels = name.split('.')
    return '.'.join(levels[:2] if levels[0].startswith('encoder') else levels[:1])


def table(entries: Iterable[Entry]) -> str:
    """Return the counts of every part, and their sums, as aligned text."""
    parts: dict[str, list[int]] = {}
    for entry in entries:
        counts = parts.setdefault(part_of(entry.name), [0, 0, 0])
        counts[0] += entry.size * entry.is_parameter
        counts[1] += entry.size * entry.trainable
        counts[2] += entry.size * (not entry.is_parameter)
    rows = [(name, *counts) for name, counts in parts.items()]
    for title, prefix in (('query encoder', 'encoder_q.'), ('key encoder', 'encoder_k.')):
        if chosen := [row for row in rows if row[0].startswith(prefix)]:
            rows.append((title, *(sum(row[i] for row in chosen) for i in (1, 2, 3))))
    rows.append(('total', *(sum(counts[i] for counts in parts.values()) for i in (0, 1, 2))))
    width = max(len(row[0]) for row in rows)
    lines = [f"{'part':<{width}} {'parameters':>14} {'trainable':>14} {'buffers':>14}"]
    for i, (name, *counts) in enumerate(rows):
        if i == len(parts):
            lines.append('-' * len(lines[0]))
        lines.append(f'{name:<{width}} ' + ' '.join(f'{count:>14,}' for count in counts))
    return '\n'.join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup count-parameters``."""
    parser.add_argument('model', metavar='MODEL', help='config, checkpoint or backbone name')
    add_overrides(parser, 'override single fields of a config')


def main(args: argparse.Namespace) -> None:
    """Count and print."""
    print(table(entries_of(args.model, args.cfg_options)))
