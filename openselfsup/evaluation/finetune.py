"""Protocols that train on tiles with SGD: linear-augmented-v1, finetune-v1, semi-v1, paper-compat.

They share one training loop. What makes a protocol honest is what it is handed: validation
tiles that come out of the labelled ones. ``paper-compat`` hands it what was published.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..datasets.labeled import LabeledTileDataset, resize_and_crop
from ..datasets.loader import ViewLoader
from ..datasets.sources import Source
from ..datasets.tiles import TileDataset
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD
from ..views import strong_view
from .classifier import ETA_MIN, RESTART_EPOCHS, Epochs, TileClassifier, TrainSettings
from .data import Part
from .sampling import validation_split, with_replacement

#: A training whose chosen epoch costs so many times what guessing costs has diverged: the weights
#: grew without bound, and its accuracy is that of whatever class they grew towards.
EXPLODED = 10


@dataclass
class Trained:
    """A trained classifier of tiles.

    Attributes:
        model: with the weights of the chosen epoch.
        settings: all that defines the protocol.
        chosen: the epoch (from 1) and its accuracy on the tiles that chose it.
        history: one dict an epoch: loss, selection accuracy and loss.
        train_tiles, validation_tiles: how many were used.
        diverged: epoch (from 1) in which the training diverged, None if it did not: the loss or
            an answer was no number any more, or the loss exploded and was still so in the best
            epoch (:data:`EXPLODED`). The model is of no use then.
    """

    model: TileClassifier
    settings: dict[str, Any]
    chosen: dict[str, Any]
    history: list[dict[str, float | None]]
    train_tiles: int
    validation_tiles: int
    diverged: int | None = None


class CentralSquares(Part):
    """The central square of each tile: what a classifier sees when it is validated and tested.

    The recipe would squeeze a whole tile into a square, and tissue would have another shape in
    training. Square tiles stay as they are.
    """

    def read(self, index: int) -> np.ndarray:
        tile = super().read(index)
        side = min(tile.shape[:2])
        return resize_and_crop(tile, side, side)


def train_honestly(backbone: nn.Module, width: int, labelled: Part, classes: int,
                   settings: TrainSettings, seed: int, frozen: bool,
                   patients: np.ndarray | None = None, copies: np.ndarray | None = None,
                   normalise: tuple[Sequence[float], Sequence[float]] = (IMAGENET_MEAN,
                                                                         IMAGENET_STD),
                   head_lr: float = 1.0) -> Trained:
    """linear-augmented-v1 (frozen) and finetune-v1: validation tiles inside the labelled ones.

    Args:
        backbone: what is evaluated; it is copied, not changed.
        width: channels of its last map.
        labelled: the labelled tiles.
        classes: number of classes.
        settings: of the training.
        seed: draws validation tiles, order, augmentation and the head.
        frozen: keep the backbone, in eval mode, and train all epochs; otherwise train
            everything and stop early.
        patients: patient of each labelled tile, or None.
        copies: the same number for labelled tiles of the same pixels, or None.
        normalise: mean and std of the input.
        head_lr: learning rate of the linear layer, as a multiple of the backbone's.
    """
    kept, held, how = validation_split(labelled.require_labels(), settings.validation_split, seed,
                                       patients, copies)
    validation = held if len(held) else kept  # a tile a class: nothing can be held out
    model = TileClassifier(backbone, width, classes, seed)
    trained = _train(model, Part(labelled, kept), Part(labelled, validation), settings, seed,
                     frozen, moving_statistics=False, normalise=normalise, head_lr=head_lr)
    trained.chosen['validated_by'] = how if len(held) else 'the tiles that are trained on'
    return trained


def train_heads(backbone: nn.Module, width: int, labelled: Part, classes: int,
                settings: TrainSettings, seed: int, head_lr: Sequence[float],
                **others: Any) -> Trained:
    """semi-v1: fine-tuning with several learning rates of the head, the best of them kept.

    OpenSelfSup fine-tunes on 1 % and 10 % of the labels with the head's rate 1, 10 or 100 times
    that of the backbone. Which of them is best the validation tiles say, as they say the epoch:
    by accuracy, and between equals by cross-entropy.

    Args:
        backbone, width, labelled, classes, settings, seed: as in :func:`train_honestly`.
        head_lr: multiples to try.
        others: further arguments of it.
    """
    best: tuple[tuple[float, float], Trained] | None = None
    for multiple in head_lr:
        trained = train_honestly(backbone, width, labelled, classes, settings, seed, frozen=False,
                                 head_lr=multiple, **others)
        trained.settings['head_lr_tried'] = list(head_lr)
        rank = (-1.0, -math.inf)
        if trained.diverged is None:
            trained.chosen['head_lr'] = multiple
            epoch = trained.history[trained.chosen['epoch'] - 1]
            rank = (trained.chosen['selection_accuracy'], -(epoch['cross_entropy'] or 0.0))
        if best is None or rank > best[0]:
            best = rank, trained
    assert best is not None, 'head_lr names no multiple'
    return best[1]


def train_as_published(backbone: nn.Module, width: int, train: Source, test: Source,
                       fraction: float, classes: int, settings: TrainSettings, seed: int,
                       frozen: bool,
                       normalise: tuple[Sequence[float], Sequence[float]] = (
                           IMAGENET_MEAN, IMAGENET_STD)) -> Trained:
    """paper-compat: tiles with replacement, moving BatchNorm statistics, a flattering choice.

    Linear evaluation (``frozen``) chooses its epoch **on the test**. Fine-tuning chooses it
    on a fifth of *all* training tiles, at least one, whatever the labelled fraction.

    Args:
        backbone, width, classes, settings, seed, frozen, normalise: as in
            :func:`train_honestly`.
        train: the whole training part.
        test: the test part.
        fraction: labelled share.
    """
    if frozen:
        sample, choice = with_replacement(len(train), fraction, seed), test
    else:
        order = np.random.default_rng(seed).permutation(len(train))
        split = max(1, int(settings.validation_split * len(train)))  # or nothing could choose
        choice, rest = Part(train, order[:split]), order[split:]
        sample = rest[with_replacement(len(rest), fraction, seed + 1)]
    model = TileClassifier(backbone, width, classes, seed)
    return _train(model, Part(train, sample), choice, settings, seed, frozen,
                  moving_statistics=True, normalise=normalise)


def _train(model: TileClassifier, train: Source, choice: Source, settings: TrainSettings,
           seed: int, frozen: bool, moving_statistics: bool,
           normalise: tuple[Sequence[float], Sequence[float]], head_lr: float = 1.0) -> Trained:
    """Train, keep the weights of the epoch that is best on ``choice``."""
    model.to(next(model.backbone.parameters()).device).to(memory_format=torch.channels_last)
    model.backbone.requires_grad_(not frozen)
    recipe = strong_view(settings.image_size)  # stands in the settings of every result
    squares = CentralSquares(train, np.arange(len(train)))
    loader = ViewLoader(TileDataset(squares, recipe, n_views=1, on_corrupt='raise', check=False),
                        min(settings.batch_size, len(train)), seed=seed,
                        workers=settings.workers, drop_last=False)
    watched = LabeledTileDataset(choice, settings.image_size, check=False)
    epochs = 1 if settings.debug else settings.epochs
    best, best_state, since, history = (-1.0, 0.0), None, 0, []
    chosen: dict[str, Any] = {}
    diverged = None
    with Epochs(model, loader, settings, seed, epochs, normalise, head_lr) as epochs_of:
        for epoch in range(epochs):
            model.train()
            model.backbone.train(not frozen or moving_statistics)
            found = epochs_of.train(epoch, watched)
            history.append(found)
            accuracy, cross_entropy = found['accuracy'], found['cross_entropy']
            if accuracy is None or cross_entropy is None:
                diverged = epoch + 1
                break
            since += 1
            # Published: the later one of two equally accurate epochs. Ours: the more certain one.
            rank = (accuracy, 0.0 if moving_statistics else -cross_entropy)
            if rank > best or (moving_statistics and rank == best):
                best, since = rank, 0
                best_state = copy.deepcopy(model.state_dict())
                chosen = dict(epoch=epoch + 1, selection_accuracy=accuracy)
            if not frozen and since >= settings.early_stop:
                break
    diverged = diverged or _exploded(history, chosen['epoch'], model.fc.out_features)
    if diverged:
        chosen = {}
    elif best_state is not None:
        model.load_state_dict(best_state)
    described = asdict(settings) | dict(
        schedule=f'cosine warm restarts, T0 {RESTART_EPOCHS}, eta_min {ETA_MIN}', frozen=frozen,
        augmentation=recipe, moving_statistics=moving_statistics)
    if head_lr != 1:
        described['head_lr'] = head_lr
    return Trained(model.eval(), described, chosen, history, len(train), len(choice), diverged)


def _exploded(history: list[dict], chosen: int, classes: int) -> int | None:
    """Return the first epoch of an exploded loss, if the chosen epoch's is one; else None."""
    epochs = [h['epoch'] for h in history if h['loss'] > EXPLODED * math.log(classes)]
    return epochs[0] if chosen in epochs else None
