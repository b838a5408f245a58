"""A classifier of tiles and its training, epoch by epoch."""

import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.labeled import LabeledTileDataset
from ..datasets.loader import ViewLoader
from ..models.parts import features_of
from ..training.features import extract_features
from ..training.finite import FiniteCheck, NotFinite
from ..training.normalization import Normalize
from ..training.optimizer_step import OptimizerStep, enough_for_batch_norm
from ..training.progress import ProgressLine
from ..training.schedules import cosine_with_restarts
from ..training.seeding import seed_step

logger = logging.getLogger(__name__)
ETA_MIN, RESTART_EPOCHS = 4e-8, 5


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
        return [self.fc(features_of(self.backbone, images))[:, :, None, None]]


class Epochs:
    """Trains a classifier epoch by epoch, and looks at it after each.

    Args:
        model: logits of normalised images.
        loader: of tiles with labels.
        settings: of the training.
        seed: of what the model draws itself.
        epochs: most of them.
        normalise: mean and std of the input.
        head_lr: learning rate of the linear layer, as a multiple of the backbone's.
    """

    def __init__(self, model: TileClassifier, loader: ViewLoader, settings: TrainSettings,
                 seed: int, epochs: int, normalise: tuple[Sequence[float], Sequence[float]],
                 head_lr: float = 1.0):
        self.model, self.loader, self.settings = model, loader, settings
        self.seed, self.epochs, self.normalise = seed, epochs, normalise
        device = next(model.parameters()).device
        groups = [dict(params=[p for p in part.parameters() if p.requires_grad], lr_mult=multiple)
                  for part, multiple in ((model.backbone, 1.0), (model.fc, head_lr))]
        self.step = OptimizerStep(
            torch.optim.SGD(groups, settings.lr, settings.momentum,
                            weight_decay=settings.weight_decay), device, settings.amp)
        self.rates = cosine_with_restarts(settings.lr, epochs, RESTART_EPOCHS, ETA_MIN)
        self.normalize = Normalize(*normalise).to(device)
        self.finite = FiniteCheck(lambda: 'a smaller --lr')
        self.progress = ProgressLine(logger, epochs * len(loader))

    def __enter__(self) -> 'Epochs':
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
            images = self.normalize(batch['views'][0])
            with self.step.autocast(), enough_for_batch_norm(images, '--batch_size'):
                logits = self.model(images)[0].flatten(1)
            loss = F.cross_entropy(logits.float(), labels)
            self.step.backward(loss)
            self.step.update(self.rates[epoch])
            self.finite.watch(dict(loss=loss), f'epoch {epoch + 1}, step {i + 1}')
            self.progress.advance()
            total += loss.detach() * len(labels)
        self.finite.check()
        return float(total) / len(self.loader.dataset)


def predict(model: nn.Module, tiles: LabeledTileDataset, settings: TrainSettings,
            normalise: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    """Return class probabilities (N, C) of un-augmented tiles, on the CPU."""
    logits = extract_features(model, tiles, settings.batch_size, *normalise, settings.amp)
    return logits.double().softmax(1)
