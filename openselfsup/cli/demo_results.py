"""What the demo measures and draws of its backbone before and after training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import load_backbone, shipped
from ..datasets import ImageFolder, LabeledTileDataset, TileDataset
from ..engine.config import load_config
from ..engine.hooks.correspondence import STEPS
from ..evaluation.baselines import ColourHistogram, ColourStatistics
from ..evaluation.comparison import Estimate, compare, estimate, stratified_resamples
from ..evaluation.correspondence import (
    TURNS,
    Correspondence,
    correspondence,
    joined,
    summarize,
)
from ..evaluation.dense.features import PatchColours
from ..evaluation.knn import nearest_tiles, vote_shares
from ..registry import ALGORITHMS
from ..training.features import extract_features, feature_maps
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD
from ..training.seeding import seed_everything
from ..visualization import component_sheet, likeness_sheet, neighbour_sheet
from ..visualization.neighbours import first_of_each

TRAIN, TEST = ('data/demo/kather2016', 'data/demo/kather2016_test')
SIZE, VIEW_SIZE = 96, 160
SEEDS = range(5)
COLOUR, HISTOGRAM = 'mean and deviation of the colours', 'colour histogram'
# ADIPOSE and EMPTY are left out: brightness alone finds them.
QUERIES = ('TUMOR', 'STROMA', 'LYMPHO', 'MUCOSA', 'COMPLEX', 'DEBRIS')
SHOWN = ('MUCOSA/image_099', 'MUCOSA/image_050', 'TUMOR/image_091', 'COMPLEX/image_013')
# Mucin of a goblet cell; two images with mucin, and two with glass that is as bright.
ASKED, PLACE = ('MUCOSA/image_099', 'MUCOSA/image_050', 'MUCOSA/image_006', 'TUMOR/image_091',
                'STROMA/image_058'), (0.6, 0.64)
LAYERS = '3+4'


def results(work_dir: Path, checkpoints: Mapping[str, Path]) -> dict[str, Any]:
    """Return the scores of backbones for the page, and write the last one's pictures.

    Args:
        work_dir: the folder of the last run, whose page it is.
        checkpoints: by method, in the order of training.
    """
    source = ImageFolder([str(shipped.ROOT / folder) for folder in (TRAIN, TEST)])
    trained = {f'after {name}': load_backbone(path) for name, path in checkpoints.items()}
    before, after = untrained(work_dir), list(trained.values())[-1]
    draw(work_dir, before, after, source)
    return dict(knn=nearest_neighbours(work_dir, trained, source),
                correspondence=correspondences(before, trained, source),
                queries='The queries are the first tiles of their classes. Colour alone finds many '
                        'neighbours of the right class, too: the scores below tell how many.')


def untrained(work_dir: Path, seed: int | None = None) -> nn.Module:
    """Return the backbone as the run began with it, or as one of another seed would."""
    cfg = load_config(work_dir / 'config.py')
    seed_everything(cfg.seed if seed is None else seed)
    return ALGORITHMS.build(cfg.model).backbone.eval()


def draw(work_dir: Path, before: nn.Module, after: nn.Module, source: ImageFolder) -> None:
    """Draw neighbours, components and likes before and after training."""
    tiles = LabeledTileDataset(source, size=SIZE)
    classes = source.require_classes()
    queries = first_of_each(tiles.labels, [classes.index(name) for name in QUERIES])
    backbones = {'before training': before, 'after training': after}
    for name, backbone in backbones.items():
        neighbour_sheet(backbone, tiles, queries, work_dir / f'neighbours_{name.split()[0]}.png',
                        title=name.capitalize())
    component_sheet(backbones, source, places(source, SHOWN), work_dir / 'components.png',
                    layers=LAYERS)
    likeness_sheet(backbones, source, places(source, ASKED), PLACE, work_dir / 'likes.png',
                   layers=LAYERS)


def nearest_neighbours(work_dir: Path, trained: Mapping[str, nn.Module], source: ImageFolder
                       ) -> dict[str, Any]:
    """Score backbones, the last one against random weights and against colour alone."""
    tiles = LabeledTileDataset(source, size=SIZE)
    labels, count = tiles.labels, len(source.require_classes())
    pixels = torch.stack([tiles[i][0] for i in range(len(tiles))]).float()
    colour = ColourStatistics()(pixels)
    random, last = f'before training, {len(SEEDS)} seeds', list(trained)[-1]
    answers = {
        COLOUR: [votes((colour - colour.mean(0)) / colour.std(0), labels, count)],
        HISTOGRAM: [votes(ColourHistogram()(pixels), labels, count)],
        random: [votes(extract_features(untrained(work_dir, seed), tiles), labels, count)
                 for seed in SEEDS],
        **{name: [votes(extract_features(backbone, tiles), labels, count)]
           for name, backbone in trained.items()}}
    scores, differences = compare(labels.numpy(), np.arange(len(labels)), answers, 'accuracy')
    rows = [dict(name=name, accuracy=found.value, interval=(found.low, found.high),
                 strong=name == last, **(dict(sd=found.sd) if name == random else {}))
            for name, found in scores.items()]
    chance = float(torch.bincount(labels).max() / len(labels))
    return dict(
        rows=[dict(name='the largest class, always', accuracy=chance), *rows],
        said=[verdict(differences[last, other], other) for other in answers if other != last],
        protocol=f'Leave-one-out accuracy of the 3 nearest neighbours (cosine) among {len(labels)} '
                 f'tiles of {count} classes, which the run saw without their labels; in brackets '
                 '95 % intervals over tiles. The settings were chosen by looking at some of these '
                 'tiles: this shows that features form, not how good a method is.')


def votes(features: Tensor, labels: Tensor, classes: int, k: int = 3) -> np.ndarray:
    """Return the votes of the k nearest other tiles for each, (N, C)."""
    near = nearest_tiles(features.double(), None, k)
    return vote_shares(*near, labels, classes, None).numpy()


def verdict(difference: Estimate, other: str) -> str:
    """Say in a sentence what a difference of two shares means."""
    points, low, high = (100 * n for n in (difference.value, difference.low, difference.high))
    told = ('Better than' if difference.above else 'Worse than' if difference.below
            else 'Not told apart from')
    return f'{told} {other}: {points:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}.'


def correspondences(before: nn.Module, trained: Mapping[str, nn.Module], source: ImageFolder,
                    batch_size: int = 20) -> dict[str, Any]:
    """Score how often a cell finds the one of another view that shows the same place, by turn."""
    data = TileDataset(source, dict(type='ViewRecipe', size=VIEW_SIZE, steps=STEPS), n_views=2)
    colours = PatchColours(ColourStatistics(), [32])
    imagenet, plain = (IMAGENET_MEAN, IMAGENET_STD), ((0.0,) * 3, (1.0,) * 3)
    backbones = {'colour': colours, 'before': before, **trained}
    found: dict[str, list] = {name: [] for name in backbones}
    for start in range(0, len(data), batch_size):
        batch = data.batch(list(range(start, min(start + batch_size, len(data)))),
                           torch.Generator().manual_seed(start))
        views, maps = torch.stack(batch['views'], 1).flatten(0, 1), batch['view_to_tile']
        for name, backbone in backbones.items():
            mean, std = plain if name == 'colour' else imagenet
            cells, = feature_maps(backbone, views, len(views), mean, std)
            found[name].append(correspondence(cells[-1][::2], cells[-1][1::2], maps[:, 0],
                                              maps[:, 1]))
    return table(found)


def table(found: Mapping[str, Sequence]) -> dict[str, Any]:
    """Return counts of several backbones as a table by turn, and what it says."""
    counts = {name: joined(parts) for name, parts in found.items()}
    summaries = {name: summarize(one) for name, one in counts.items()}
    names = dict(all='all', **dict(zip(TURNS, (
        'upright', 'turned by 90°', 'turned by 180°', 'mirrored'))))
    one = next(iter(summaries.values()))
    rows = [dict(name=words, scores=[one[key]['chance'],
                                     *(summary[key]['score'] for summary in summaries.values())])
            for key, words in names.items() if key in one]
    return dict(columns=['a guess', *summaries], rows=rows, said=found_again(counts), protocol=(
        'Share of the cells of one view, in %, whose nearest cell of another view of the tile, by '
        f'the cosine of features, shows the same place ({VIEW_SIZE} px, 5 x 5 cells, both views '
        'cropped, turned and with other colours). Before training, upright views score by where '
        'a cell lies in the view, which zero padding tells, and turned ones less for it.'))


def found_again(found: Mapping[str, Correspondence]) -> list[str]:
    """Say how the share of cells that are found after training compares with the others.

    Intervals are over tiles, the same ones redrawn for both sides; each is one pair of views.
    """
    tiles = np.arange(len(next(iter(found.values())).counted))
    weights = stratified_resamples(np.zeros(len(tiles), int), tiles)
    shares = {name: (weights @ one.right.double().numpy() / np.maximum(
        weights @ one.counted.double().numpy(), 1))[None] for name, one in found.items()}
    *others, last = shares
    said = [f'After training {100 * shares[last][0, 0]:.1f} % of the cells are found.']
    for name in others:
        other = 'colour alone' if name == 'colour' else f'the backbone {name}'
        said.append(verdict(estimate(shares[last], shares[name]),
                            f'{other} ({100 * shares[name][0, 0]:.1f} %)'))
    return said


def places(source: ImageFolder, names: Sequence[str]) -> list[int]:
    """Return the indices of tiles by class and name."""
    return [next(i for i, path in enumerate(source.paths)
                 if Path(path).with_suffix('').as_posix().endswith(name)) for name in names]
