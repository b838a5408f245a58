"""Frozen features against labels: linear and kNN at several shares of the labels."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from openselfsup.datasets import LabeledTileDataset
from openselfsup.evaluation.baselines import (
    COLOUR_HISTOGRAM,
    COLOUR_STATISTICS,
    FeatureBank,
)
from openselfsup.evaluation.knn import fit_knn
from openselfsup.evaluation.linear_probe import fit_linear
from openselfsup.files import atomic_file
from openselfsup.training.features import extract_features
from openselfsup.training.normalization import Wanted

from .networks import Network
from .tissue import Tiles, few

SHARES = (0.05, 0.2, 1.0)
PROTOCOLS = ('linear-v1', 'knn-v1')
COLOURS = (COLOUR_STATISTICS, COLOUR_HISTOGRAM)


@dataclass(frozen=True)
class Question:
    """One thing that features are asked: a labelling, a protocol, a share of the labels."""

    labelling: str
    protocol: str
    share: float

    def __str__(self) -> str:
        return f'{self.labelling}, {self.protocol}, {100 * self.share:g} % of the labels'


def questions(tiles: Tiles) -> Iterator[Question]:
    """Yield all questions, the main labelling first."""
    for asked in itertools.product(tiles.labels, PROTOCOLS, SHARES):
        yield Question(*asked)


def features_of(backbone: nn.Module | None, tiles: Tiles, size: int, batch_size: int = 32,
                wanted: Wanted = Wanted()) -> dict[str, Tensor]:
    """Return pooled features of tiles by a backbone, or those of colours without one.

    Args:
        backbone: as :func:`~openselfsup.load_backbone` returns it, or None.
        tiles: N tiles.
        size: side of the input in pixels.
        batch_size: tiles of one forward pass.
        wanted: normalisation that the backbone wants.

    Returns:
        float32 (N, C) by name, '' for a backbone's.
    """
    data = Subset(LabeledTileDataset(tiles.source, size=size), tiles.indices.tolist())
    if backbone is not None:
        return {'': extract_features(backbone, data, batch_size, wanted.mean, wanted.std)}
    bank = FeatureBank({}, colours=True)
    found = extract_features(bank, data, batch_size)
    return bank.split(found)


def answers(train: Tensor, test: Tensor, tiles: Tiles, seed: int, colour: bool
            ) -> dict[str, np.ndarray]:
    """Return what a classifier on frozen features answers to every question.

    Args:
        train, test: features (N, C) and (M, C) of both parts.
        tiles: the N training tiles.
        seed: draws the labelled tiles and those that choose the penalty.
        colour: standardise the features for kNN, see :func:`fit_knn`.

    Returns:
        Probabilities (M, classes) by question, float32.
    """
    found = {}
    for asked in questions(tiles):
        labels = tiles.labels[asked.labelling]
        chosen = few(labels, asked.share, seed) if asked.share < 1 else np.arange(len(labels))
        x, y, classes = train[chosen], torch.from_numpy(labels[chosen]), int(labels.max()) + 1
        fitted = (fit_linear(x, y, classes, seed, tiles.cases[chosen])
                  if asked.protocol == PROTOCOLS[0] else
                  fit_knn(x, y, classes, standardise=colour))
        found[str(asked)] = fitted.probabilities(test).float().numpy()
    return found


def answers_file(folder: Path, name: str, seed: int) -> Path:
    """Return where the answers of a run are kept."""
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}_{seed}.npz"


def save(path: Path, found: Mapping[str, np.ndarray]) -> None:
    """Write answers, whole or not at all."""
    with atomic_file(path) as file:
        np.savez_compressed(file, **found)


def evaluate(name: str, network: Network | None, checkpoint: Path | None, seed: int,
             parts: tuple[Tiles, Tiles], size: int, out: Path, device: str = 'cpu') -> None:
    """Answer all questions by one backbone or baseline; what was answered before is kept.

    Args:
        name: of a method, or a baseline.
        network: kind of its backbone, None for colours.
        checkpoint: of a method's run; None stands for random weights.
        seed: of the run, of the random weights and of the labelled tiles.
        parts: tiles that learn and tiles that are tested.
        size: side of the input in pixels.
        out: folder of the answers, ``NAME_SEED.npz``.
        device: of the backbone, 'cpu', or 'cuda' for a GPU if there is one.
    """
    path = answers_file(out, name, seed)
    if path.exists():
        return
    backbone = network.backbone(checkpoint, seed, device) if network else None
    wanted = network.normalization(checkpoint) if network else Wanted()
    features = [features_of(backbone, part, size, wanted=wanted) for part in parts]
    key = '' if backbone is not None else name
    save(path, answers(features[0][key], features[1][key], parts[0], seed, name in COLOURS))
