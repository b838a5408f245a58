"""Count the parameters of a model, part by part.

Example:
    openselfsup count-parameters PLM_SSL/r18_bs256_ep200
    openselfsup count-parameters resnet50

MODEL is a config (the algorithm it describes is built), a checkpoint of any kind, or the
name of a backbone: resnet18, resnet34, resnet50, resnet101, resnext50.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, nearest
from ..shipped import is_config
from .arguments import add_overrides

if TYPE_CHECKING:
    from ..checkpoints.counts import Entry

BACKBONES = {'resnet18': ('ResNet', 18), 'resnet34': ('ResNet', 34), 'resnet50': ('ResNet', 50),
             'resnet101': ('ResNet', 101), 'resnext50': ('ResNeXt', 50)}


def entries_of(model: str, options: list[str]) -> list['Entry']:
    """Return the tensors of a config's algorithm, a checkpoint or a named backbone.

    Raises:
        UserError: ``model`` is none of these.
    """
    from ..checkpoints import load
    from ..checkpoints.counts import tensors_of, tensors_of_checkpoint
    if model in BACKBONES:
        from .. import registry
        family, depth = BACKBONES[model]
        return tensors_of(registry.BACKBONES.build(dict(type=family, depth=depth)))
    if is_config(model):
        from ..lineage.configs import load_config
        from ..registry import ALGORITHMS
        return tensors_of(ALGORITHMS.build(load_config(model, options).model))
    if not Path(model).exists() and '.' not in Path(model).name:
        raise UserError(f"'{model}' is neither a file nor a backbone",
                        expected='a config, a checkpoint, or one of ' + ', '.join(BACKBONES),
                        nearest=nearest(model, BACKBONES))
    return tensors_of_checkpoint(load(model))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup count-parameters``."""
    parser.add_argument('model', metavar='MODEL', help='config, checkpoint or backbone name')
    add_overrides(parser, 'override single fields of a config')


def main(args: argparse.Namespace) -> None:
    """Count and print."""
    from ..checkpoints.counts import table
    print(table(entries_of(args.model, args.cfg_options)))
