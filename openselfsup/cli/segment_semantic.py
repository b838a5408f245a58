"""Train a U-Net on a pretrained backbone for semantic segmentation, and evaluate it.

Example:
    openselfsup segment semantic bcss_r18_unet backbone BACKBONE.pth out OUT
    openselfsup segment semantic bcss_r18_unet_frozen backbone BACKBONE.pth

NAME VALUE pairs override single settings. OUT/index.html shows scores and tiles, worst first.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..shipped import find_config
from .arguments import add_amp

if TYPE_CHECKING:
    from ..transfer.semantic.config import SemanticConfig

CONFIGS = 'segmentation/semantic/configs'
INTERMIXED = True  # NAME VALUE pairs may stand between the options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup segment semantic``."""
    parser.add_argument('config', help='YAML of settings, or the name of one of ours')
    parser.add_argument('--resume', action='store_true', help='go on from OUT/latest.pth')
    parser.add_argument('--cpu', action='store_true', help='do not use a GPU')
    add_amp(parser, "precision, in place of the config's")
    parser.add_argument('opts', nargs='*', metavar='NAME VALUE')


def main(args: argparse.Namespace) -> None:
    """Train, score and show."""
    from ..claims import claimed
    from ..transfer.instance.job import refuse_to_overwrite
    from ..transfer.instance.yaml_config import literal, parse_overrides, read_yaml
    from ..transfer.semantic.config import SemanticConfig
    values = read_yaml(find_config(args.config, CONFIGS, '.yaml'), nested=False)
    for name, value in parse_overrides(args.opts).items():
        values[name] = (literal(value), 'command line')
    if args.amp:
        values['amp'] = (args.amp, '--amp')
    config = SemanticConfig.read(values)
    with claimed(config.out, 'semantic segmentation'):
        if not args.resume:
            refuse_to_overwrite(config.out, 'results.json', 'latest.pth')
        train(config, args.resume, args.cpu)


def train(config: 'SemanticConfig', resume: bool, cpu: bool) -> None:
    """Train, score and show."""
    import torch

    from ..training.logs import build_logger
    from ..transfer.semantic.page import score_and_show, score_lines
    from ..transfer.semantic.trainer import SemanticTrainer
    log = build_logger(Path(config.out) / 'train.log')
    on_gpu = torch.cuda.is_available() and not cpu
    trainer = SemanticTrainer(config, torch.device('cuda' if on_gpu else 'cpu'))
    trainer.fit(resume)
    log.info('%s\n%s', config.out, score_lines(score_and_show(trainer)))
