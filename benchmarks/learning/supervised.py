"""What labels alone teach: a network trained end to end from random weights, on the same tiles."""

from pathlib import Path

import numpy as np

from openselfsup.datasets import LabeledTileDataset
from openselfsup.errors import UserError
from openselfsup.evaluation.classifier import TrainSettings, predict
from openselfsup.evaluation.data import Part
from openselfsup.evaluation.finetune import train_honestly
from openselfsup.evaluation.settings import FINETUNE
from openselfsup.training.normalization import IMAGENET_MEAN, IMAGENET_STD
from openselfsup.training.precision import resolve

from .classification import SHARES, Question, answers_file, save
from .networks import RESNET18, device_of
from .tissue import Tiles, few

EPOCHS = 5  # with all labels: one period of the learning rate
BATCH_SIZE = 16


def name_of(epochs: int) -> str:
    """Return what this baseline is called."""
    return f'supervised, {epochs} epochs ({FINETUNE})'


def evaluate(seed: int, parts: tuple[Tiles, Tiles], size: int, epochs: int, out: Path,
             device: str = 'cpu') -> None:
    """Train with every share of the labels and answer; what was answered before is kept.

    It is ``finetune-v1`` from the random weights of a seed, on the labelled tiles that frozen
    features of that seed are given, for the main labelling. Every share is trained for as many
    steps: a fifth of the labels for five times the epochs. None is stopped early; the epoch is
    chosen, as always in that protocol, on a fifth of the labelled tiles.

    Args:
        seed: of the weights, of the labelled tiles and of the training.
        parts: tiles that learn and tiles that are tested.
        size: side of the input in pixels.
        epochs: with all labels.
        out: folder of the answers, probabilities (M, classes) by question.
        device: 'cpu', or 'cuda' for a GPU if there is one.

    Raises:
        UserError: a training diverged.
    """
    path = answers_file(out, name_of(epochs), seed)
    if path.exists():
        return
    there = device_of(device)
    (learn, test), found = parts, {}
    labelling = next(iter(learn.labels))
    labels, tested = learn.labels[labelling], _relabelled(test, labelling)
    for share in SHARES:
        print(f'{name_of(epochs)}, seed {seed}: {100 * share:g} % of the labels', flush=True)
        chosen = few(labels, share, seed) if share < 1 else np.arange(len(labels))
        longer = max(1, round(epochs * len(labels) / len(chosen)))
        settings = TrainSettings(epochs=longer, batch_size=BATCH_SIZE, early_stop=longer,
                                 image_size=size, amp=resolve('auto', there))
        backbone = RESNET18.untrained(seed).to(there)
        trained = train_honestly(
            backbone, backbone.out_channels[-1], _relabelled(learn.part(chosen), labelling),
            int(labels.max()) + 1, settings, seed, frozen=False, patients=learn.cases[chosen])
        if trained.diverged:
            raise UserError(f'the supervised training diverged in epoch {trained.diverged}',
                            where=f'{labelling}, {100 * share:g} % of the labels, seed {seed}',
                            expected='another number of epochs, or no --supervised')
        found[str(Question(labelling, FINETUNE, share))] = predict(
            trained.model, LabeledTileDataset(tested, size, check=False), settings,
            (IMAGENET_MEAN, IMAGENET_STD)).float().numpy()
    save(path, found)


def _relabelled(tiles: Tiles, labelling: str) -> Part:
    """Return tiles as a source with the labels of a labelling."""
    part = Part(tiles.source, tiles.indices)
    part.labels, part.classes = tiles.labels[labelling], None
    return part
