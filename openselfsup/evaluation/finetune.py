"""Protocols that train on tiles with SGD: linear-augmented-v1, finetune-v1, paper-compat.

They share one training loop. What makes a protocol honest is what it is handed: validation
tiles that come out of the labelled ones. ``paper-compat`` hands it what was published.
"""

import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.labeled import LabeledTileDataset
from ..datasets.loader import ViewLoader
from ..datasets.sources import Source
from ..datasets.tiles import TileDataset
from ..training.features import extract_features
from ..training.finite import FiniteCheck, NotFinite
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD, Normalize
from ..training.optimizer_step import OptimizerStep
from ..training.progress import ProgressLine
from ..training.schedules import cosine_with_restarts
from ..training.seeding import seed_step
from ..views import strong_view
from .data import Part
from .sampling import validation_split, with_replacement

logger = logging.getLogger(__name__)
ETA_MIN, RESTART_EPOCHS = 4e-8, 5
#: A training whose chosen epoch costs so many times what guessing costs has diverged: the weights
#: grew without bound, and its accuracy is that of whatever class they grew towards.
EXPLODED = 10


@dataclass
class TrainSettings:
    """Settings of the published fine-tuning and linear evaluation, with their defaults.

    Attributes:
        epochs: most epochs.
        lr: learning rate of SGD; cosine with warm restarts every 5 epochs down to 4e-8.
        momentum: of SGD.
        weight_decay: of SGD.
        batch_size: tiles of a step.
        early_stop: stop fine-tuning after so many epochs in a row without a better one.
        validation_split: share of the labelled tiles (paper-compat: of all training tiles)
            that validates.
        image_size: side of the input in pixels.
        workers: threads that prepare tiles, None to fit the machine.
        amp: 'off', 'bf16' or 'fp16'.
        debug: stop after one epoch.
    """

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 128
    early_stop: int = 5
    validation_split: float = 0.2
    image_size: int = 224
    workers: int | None = None
    amp: str = 'off'
    debug: bool = False


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

    model: 'TileClassifier'
    settings: dict[str, Any]
    chosen: dict[str, Any]
    history: list[dict[str, float | None]]
    train_tiles: int
    validation_tiles: int
    diverged: int | None = None


class TileClassifier(nn.Module):
    """Backbone, global average pooling, one linear layer.

    Args:
        backbone: maps images to a list of feature maps. It is copied.
        width: channels of its last map.
        classes: number of classes.
        seed: of the linear layer's initialisation.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int, seed: int):
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to logits as one "map" (B, C, 1, 1), like a backbone."""
        return [self.fc(self.backbone(images)[-1].mean((2, 3)))[:, :, None, None]]


def train_honestly(backbone: nn.Module, width: int, labelled: Part, classes: int,
                   settings: TrainSettings, seed: int, frozen: bool,
                   patients: np.ndarray | None = None, copies: np.ndarray | None = None,
                   normalise: tuple[Sequence[float], Sequence[float]] = (IMAGENET_MEAN,
                                                                         IMAGENET_STD)) -> Trained:
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
    """
    kept, held, how = validation_split(labelled.labels, settings.validation_split, seed, patients,
                                       copies)
    validation = held if len(held) else kept  # a tile a class: nothing can be held out
    model = TileClassifier(backbone, width, classes, seed)
    trained = _train(model, Part(labelled, kept), Part(labelled, validation), settings, seed,
                     frozen, moving_statistics=False, normalise=normalise)
    trained.chosen['validated_by'] = how if len(held) else 'the tiles that are trained on'
    return trained


def train_as_published(backbone: nn.Module, width: int, train: Source, test: Source,
                       fraction: float, classes: int, settings: TrainSettings, seed: int,
                       frozen: bool,
                       normalise: tuple[Sequence[float], Sequence[float]] = (
                           IMAGENET_MEAN, IMAGENET_STD)) -> Trained:
    """paper-compat: tiles with replacement, moving BatchNorm statistics, a flattering choice.

    Linear evaluation (``frozen``) chooses its epoch **on the test**. Fine-tuning chooses it
    on a fifth of *all* training tiles, whatever the labelled fraction.

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
        split = int(settings.validation_split * len(train))
        choice, rest = Part(train, order[:split]), order[split:]
        sample = rest[with_replacement(len(rest), fraction, seed + 1)]
    model = TileClassifier(backbone, width, classes, seed)
    return _train(model, Part(train, sample), choice, settings, seed, frozen,
                  moving_statistics=True, normalise=normalise)


def predict(model: nn.Module, tiles: LabeledTileDataset, settings: TrainSettings,
            normalise: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    """Return class probabilities (N, C) of un-augmented tiles, on the CPU."""
    logits = extract_features(model, tiles, settings.batch_size, *normalise, settings.amp)
    return logits.double().softmax(1)


def _train(model: TileClassifier, train: Source, choice: Source, settings: TrainSettings,
           seed: int, frozen: bool, moving_statistics: bool,
           normalise: tuple[Sequence[float], Sequence[float]]) -> Trained:
    """Train, keep the weights of the epoch that is best on ``choice``."""
    model.to(next(model.backbone.parameters()).device, memory_format=torch.channels_last)
    model.backbone.requires_grad_(not frozen)
    recipe = strong_view(settings.image_size)  # stands in the settings of every result
    loader = ViewLoader(TileDataset(train, recipe, n_views=1, on_corrupt='raise', check=False),
                        min(settings.batch_size, len(train)), seed=seed,
                        workers=settings.workers, drop_last=False)
    watched = LabeledTileDataset(choice, settings.image_size, check=False)
    epochs = 1 if settings.debug else settings.epochs
    best, best_state, since, history = (-1.0, 0.0), None, 0, []
    chosen, diverged = {}, None
    with _Epochs(model, loader, settings, seed, epochs, normalise) as epochs_of:
        for epoch in range(epochs):
            model.train()
            model.backbone.train(not frozen or moving_statistics)
            found = epochs_of.train(epoch, watched)
            history.append(found)
            if found['accuracy'] is None:
                diverged = epoch + 1
                break
            since += 1
            # Published: the later one of two equally accurate epochs. Ours: the more certain one.
            rank = (found['accuracy'], 0.0 if moving_statistics else -found['cross_entropy'])
            if rank > best or (moving_statistics and rank == best):
                best, since = rank, 0
                best_state = copy.deepcopy(model.state_dict())
                chosen = dict(epoch=epoch + 1, selection_accuracy=found['accuracy'])
            if not frozen and since >= settings.early_stop:
                break
    diverged = diverged or _exploded(history, chosen['epoch'], model.fc.out_features)
    if diverged:
        chosen = {}
    else:
        model.load_state_dict(best_state)
    described = asdict(settings) | dict(
        schedule=f'cosine warm restarts, T0 {RESTART_EPOCHS}, eta_min {ETA_MIN}', frozen=frozen,
        augmentation=recipe, moving_statistics=moving_statistics)
    return Trained(model.eval(), described, chosen, history, len(train), len(choice), diverged)


def _exploded(history: list[dict], chosen: int, classes: int) -> int | None:
    """Return the first epoch of an exploded loss, if the chosen epoch's is one; else None."""
    epochs = [h['epoch'] for h in history if h['loss'] > EXPLODED * math.log(classes)]
    return epochs[0] if chosen in epochs else None


class _Epochs:
    """Trains a classifier epoch by epoch, and looks at it after each.

    Args:
        model: logits of normalised images.
        loader: of tiles with labels.
        settings: of the training.
        seed: of what the model draws itself.
        epochs: most of them.
        normalise: mean and std of the input.
    """

    def __init__(self, model: nn.Module, loader: ViewLoader, settings: TrainSettings, seed: int,
                 epochs: int, normalise: tuple[Sequence[float], Sequence[float]]):
        self.model, self.loader, self.settings = model, loader, settings
        self.seed, self.epochs, self.normalise = seed, epochs, normalise
        device = next(model.parameters()).device
        trained = [p for p in model.parameters() if p.requires_grad]
        self.step = OptimizerStep(
            torch.optim.SGD(trained, settings.lr, settings.momentum,
                            weight_decay=settings.weight_decay), device, settings.amp)
        self.rates = cosine_with_restarts(settings.lr, epochs, RESTART_EPOCHS, ETA_MIN)
        self.normalize = Normalize(*normalise).to(device)
        self.finite = FiniteCheck(lambda: 'a smaller --lr')
        self.progress = ProgressLine(logger, epochs * len(loader))

    def __enter__(self) -> '_Epochs':
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.close()

    def train(self, epoch: int, watched: LabeledTileDataset) -> dict[str, float | None]:
        """Train an epoch (from 0); return its loss, and accuracy and loss on ``watched``.

        The two are None where a loss or an answer was not finite.
        """
        position = f'epoch {epoch + 1}/{self.epochs}'
        self.progress.open(position, len(self.loader))
        start = time.perf_counter()
        try:
            loss = self._take_steps(epoch)
        except NotFinite as error:
            logger.warning('%s', error)
            return dict(epoch=epoch + 1, loss=math.nan, accuracy=None, cross_entropy=None)
        seconds = time.perf_counter() - start
        probabilities = predict(self.model, watched, self.settings, self.normalise)
        if not probabilities.isfinite().all():
            return dict(epoch=epoch + 1, loss=loss, accuracy=None, cross_entropy=None)
        accuracy = float((probabilities.argmax(1) == watched.labels).double().mean())
        cross_entropy = float(F.nll_loss(probabilities.clamp(min=1e-12).log(), watched.labels))
        self.progress.record(position, dict(
            loss=loss, accuracy=accuracy, lr=self.rates[epoch],
            tiles_per_s=len(self.loader.dataset) / seconds,
            data_wait=min(self.loader.take_wait() / seconds, 1.0)))
        return dict(epoch=epoch + 1, loss=loss, accuracy=accuracy, cross_entropy=cross_entropy)

    def _take_steps(self, epoch: int) -> float:
        """Take every step of an epoch and return the mean loss.

        Raises:
            NotFinite: a loss was NaN or infinite.
        """
        self.loader.set_position(epoch)
        total = torch.zeros((), device=self.step.device)
        for i, batch in enumerate(self.loader):
            seed_step(self.seed, 0, epoch * len(self.loader) + i)
            labels = batch['label'].to(self.step.device)
            with self.step.autocast():
                logits = self.model(self.normalize(batch['views'][0]))[0].flatten(1)
            loss = F.cross_entropy(logits.float(), labels)
            self.step.backward(loss)
            self.step.update(self.rates[epoch])
            self.finite.watch(dict(loss=loss), f'epoch {epoch + 1}, step {i + 1}')
            self.progress.advance()
            total += loss.detach() * len(labels)
        self.finite.check()
        return float(total) / len(self.loader.dataset)
