"""What a reader sees of a semantic segmentation: a table of scores and a page of tiles."""

from pathlib import Path

import numpy as np

from ...datasets.png import write_png
from ...files import write_text
from ...visualization import overlays, page
from .trainer import SemanticTrainer

TITLE = 'Semantic segmentation'


def score_and_show(trainer: SemanticTrainer, limit: int = 20) -> dict:
    """Score the test set; write ``results.json`` and ``index.html``. Returns the results.

    Args:
        trainer: a trained one.
        limit: tiles on the page, those with the fewest right pixels first.
    """
    accuracy: dict[int, float] = {}
    found: dict[int, np.ndarray] = {}

    def remember(index: int, truth: np.ndarray, prediction: np.ndarray) -> None:
        counted = truth != trainer.test_set.ignore_index
        if counted.any():
            accuracy[index] = float((truth == prediction)[counted].mean())
            found[index] = prediction

    results = trainer.evaluate(remember)
    worst = sorted(found, key=accuracy.__getitem__)[:limit]
    write_page(trainer, results, {index: (accuracy[index], found[index]) for index in worst})
    return results


def write_page(trainer: SemanticTrainer, results: dict,
               tiles: dict[int, tuple[float, np.ndarray]]) -> None:
    """Write ``index.html``: the scores, and some tiles of the test set.

    Args:
        trainer: that made the results.
        results: what ``results.json`` holds.
        tiles: share of right pixels and found classes by index, in the order of the page.
    """
    out, data = Path(trainer.config.out), trainer.test_set
    colors = overlays.class_colors(len(data.classes))
    rows = [page.Row(name, c['dice']) for name, c in results['scores']['classes'].items()
            if c['dice'] is not None]
    write_png(out / 'legend.png', overlays.draw_legend(data.classes, colors))
    pictures = [page.picture(out, 'legend.png', 'Tile, true classes, found classes; pixels that '
                                                'do not count are shown bare.')]
    for place, (index, (accuracy, found)) in enumerate(tiles.items(), 1):
        image, mask = data.read(index)
        drawn = overlays.draw_semantic_overlay(image, mask, found, colors, data.ignore_index)
        name = f'overlays/{place:02d}_{Path(data.names[index]).stem}.png'
        write_png(out / name, drawn)
        pictures.append(page.picture(out, name, f'{data.names[index]}: {accuracy:.1%} of the '
                                                'pixels that count are right.'))
    write_text(out / 'index.html', page.page(TITLE, [
        page.heading(TITLE, f"started from {results['run']['initialised']}"),
        page.section('Dice of each class, pixels pooled',
                     page.score_table(rows, 'Class', 'Dice, %')),
        page.section('Tiles, worst first', *pictures)]), 'backslashreplace')


def score_lines(results: dict) -> str:
    """Return the scores as lines of text, one a class."""
    scores = results['scores']
    lines = [f'{"class":<24}{"Dice":>8}{"IoU":>8}{"share":>8}']
    total = sum(c['pixels'] for c in scores['classes'].values()) or 1
    for name, c in scores['classes'].items():
        cells = ''.join(f'{"-":>8}' if c[k] is None else f'{c[k]:8.3f}' for k in ('dice', 'iou'))
        lines.append(f'{name:<24}{cells}{c["pixels"] / total:8.3f}')
    lines.append(f'{"mean":<24}{scores["mean_dice"]:8.3f}{scores["mean_iou"]:8.3f}')
    return '\n'.join([*lines, *results['data']['notes']])
