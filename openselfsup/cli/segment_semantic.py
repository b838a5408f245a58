"""Train a U-Net on a pretrained backbone for semantic segmentation, and evaluate it.

Example:
    openselfsup segment semantic bcss_r18_unet backbone BACKBONE.pth out OUT
    openselfsup segment semantic bcss_r18_unet_frozen backbone BACKBONE.pth

NAME VALUE pairs override single settings. OUT/index.html shows scores and tiles, worst first.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch

from ..claims import claimed
from ..files import write_text
from ..shipped import find_config
from ..transfer.instance.job import refuse_to_overwrite
from ..transfer.instance.yaml_config import literal, parse_overrides, read_yaml
from ..transfer.semantic.trainer import SemanticTrainer, Settings, result_lines
from ..visualization import overlays, page


def write_page(trainer: SemanticTrainer, outcome: dict, accuracy: dict[int, float],
               found: dict[int, np.ndarray], limit: int = 20) -> None:
    """Write ``index.html``: the scores, and the tiles with the fewest right pixels first."""
    out, data = Path(trainer.settings.out), trainer.test_set
    colors = overlays.class_colors(len(data.classes))
    rows = [page.Row(name, c['dice']) for name, c in outcome['scores']['classes'].items()
            if c['dice'] is not None]
    overlays.write_png(out / 'legend.png', overlays.draw_legend(data.classes, colors))
    pictures = [page.picture(out, 'legend.png', 'Tile, true classes, found classes; pixels that '
                                                'do not count are shown bare.')]
    for place, index in enumerate(sorted(found, key=accuracy.get)[:limit], 1):
        image, mask = data.read(index)
        drawn = overlays.draw_semantic_overlay(image, mask, found[index], colors,
                                               data.ignore_index)
        name = f'overlays/{place:02d}_{Path(data.names[index]).stem}.png'
        overlays.write_png(out / name, drawn)
        pictures.append(page.picture(out, name, f'{data.names[index]}: {accuracy[index]:.1%} of '
                                                'the pixels that count are right.'))
    title = 'Semantic segmentation'
    write_text(out / 'index.html', page.page(title, [
        page.heading(title, f"started from {outcome['run']['initialised']}"),
        page.section('Dice of each class, pixels pooled',
                     page.score_table(rows, 'Class', 'Dice, %')),
        page.section('Tiles, worst first', *pictures)]), 'backslashreplace')


def train(settings: Settings, resume: bool, cpu: bool) -> None:
    """Train, score and show."""
    handlers = [logging.StreamHandler(sys.stdout),
                logging.FileHandler(Path(settings.out) / 'train.log', encoding='utf-8',
                                    errors='backslashreplace')]
    logging.basicConfig(level=logging.INFO, format='%(asctime)s  %(message)s',
                        datefmt='%H:%M:%S', handlers=handlers)
    on_gpu = torch.cuda.is_available() and not cpu
    trainer = SemanticTrainer(settings, torch.device('cuda' if on_gpu else 'cpu'))
    trainer.fit(resume)
    accuracy, found = {}, {}

    def remember(index: int, truth: np.ndarray, prediction: np.ndarray) -> None:
        counted = truth != trainer.test_set.ignore_index
        if counted.any():
            accuracy[index] = float((truth == prediction)[counted].mean())
            found[index] = prediction

    outcome = trainer.evaluate(remember)
    write_page(trainer, outcome, accuracy, found)
    logging.info('%s\n%s', settings.out, result_lines(outcome))


CONFIGS = 'segmentation/semantic/configs'
INTERMIXED = True  # NAME VALUE pairs may stand between the options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``openselfsup segment semantic``."""
    parser.add_argument('config', help='YAML of settings, or the name of one of ours')
    parser.add_argument('--resume', action='store_true', help='go on from OUT/latest.pth')
    parser.add_argument('--cpu', action='store_true', help='do not use a GPU')
    parser.add_argument('opts', nargs='*', metavar='NAME VALUE')


def main(args: argparse.Namespace) -> None:
    """Train, score and show."""
    values = read_yaml(find_config(args.config, CONFIGS, '.yaml'), nested=False)
    for name, value in parse_overrides(args.opts).items():
        values[name] = (literal(value), 'command line')
    settings = Settings.read(values)
    with claimed(settings.out, 'semantic segmentation'):
        if not args.resume:
            refuse_to_overwrite(settings.out, 'results.json', 'latest.pth')
        train(settings, args.resume, args.cpu)
