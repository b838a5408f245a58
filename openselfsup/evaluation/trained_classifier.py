"""How well a classifier that was trained with labels knows other tiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints import load, refuse_spoilt, weights_of
from ..datasets.sources import Source
from ..errors import UserError
from ..files import read_json
from ..models.algorithms.classification import Classification
from ..models.parts import check_classes
from .extract import extract_source
from .metrics import bootstrap, score, with_intervals
from .results import plain


class Scorer(nn.Module):
    """A classifier as a backbone: the scores of all its heads as one "map".

    Args:
        model: the classifier.
    """

    def __init__(self, model: Classification):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to scores (B, heads · K, 1, 1)."""
        found = self.model.head(self.model.backbone(images))
        heads = found if isinstance(found, list) else [found]
        return [torch.cat(heads, 1).float()[:, :, None, None]]


def load_classifier(model: Classification, path: str | Path) -> str:
    """Fill a classifier, its backbone and its head, from a checkpoint of ours or a published one.

    Returns:
        How many tensors were filled, in words.

    Raises:
        UserError: it is no checkpoint of this model.
    """
    state = weights_of(load(path))
    own = model.state_dict()
    optional = {name for name in own if name.endswith('num_batches_tracked')}
    missing = [name for name in own if name not in state and name not in optional]
    strange = [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or shapes or strange:
        raise UserError('this is no checkpoint of the config\'s classifier: ' + '; '.join(
            f'{len(names)} tensors {what}, such as {names[0]}' for what, names in (
                ('are missing', missing), ('have another shape', shapes),
                ('are of something else', strange)) if names), where=str(path))
    refuse_spoilt(state, str(path))
    model.load_state_dict(state, strict=False)
    return f'{len(own) - len(optional - state.keys())}/{len(own)} tensors'


def labels_as_trained(source: Source, classes: list[str] | None, count: int) -> np.ndarray:
    """Return the labels of tiles as the classifier was trained on them: by name where there is one.

    Args:
        source: the tiles to test on.
        classes: names of the classes of the training tiles, None where they are not known.
        count: how many classes the classifier tells apart.

    Raises:
        UserError: tiles of a class that was not trained, or of some classes where it is not known
            which.
    """
    labels = source.require_labels()
    if classes is None and source.classes is not None and len(source.classes) < count:
        raise UserError(f'these tiles are of {len(source.classes)} classes, and which of the '
                        f'{count} that were trained cannot be told without the training tiles',
                        where=source.path(0),
                        expected='them, which --cfg-options dataset.source.root=DIR names')
    if classes is None or source.classes is None or source.classes == classes:
        return labels
    unknown = [name for name in source.classes if name not in classes]
    if unknown:
        raise UserError(f"class '{unknown[0]}' was not trained", where=source.path(0),
                        expected='some of ' + ', '.join(classes))
    return np.array([classes.index(name) for name in source.classes], np.int64)[labels]


def refuse_other_scores(path: Path, inputs: dict[str, Any]) -> None:
    """Stop before scores of other weights, tiles or settings are overwritten.

    Args:
        path: where the scores go; the same ones may be there.
        inputs: what they are computed from, by name.

    Raises:
        UserError: the file holds other scores, or does not tell of what.
    """
    if not path.exists():
        return
    old, expected = read_json(path), 'another --work_dir, or this file moved away'
    before = old.get('inputs') if isinstance(old, dict) else None
    if not isinstance(before, dict):
        raise UserError('this file does not tell of which weights and tiles it is',
                        where=str(path), expected=expected)
    now = plain(inputs)
    if other := [key for key in now if key not in before or plain(before[key]) != now[key]]:
        raise UserError(f"this file holds scores of {old['checkpoint']} on {old['tiles']} tiles "
                        f"such as {old['first']}: of other {', '.join(other)}", where=str(path),
                        expected=expected)


def score_classifier(model: Classification, source: Source, labels: np.ndarray, size: int,
                    resize: int | None, normalise: tuple[Sequence[float], Sequence[float]],
                    amp: str, folder: Path, patients: np.ndarray | None = None
                    ) -> dict[str, dict[str, Any]] | None:
    """Score a classifier on labelled tiles, each of several processes on a part of them.

    Args:
        model: the classifier, on the device where it runs.
        source: N tiles.
        labels: their classes as they were trained, int64 (N,).
        size, resize: side of the input, and short side of a tile before the crop.
        normalise: mean and std of the input.
        amp: 'off', 'bf16' or 'fp16'.
        folder: where the processes hand their parts to rank 0.
        patients: of each tile, (N,), whom intervals redraw; tiles if None.

    Returns:
        On rank 0 the scores of each head by its name, with a 95 % interval: those of
        :data:`~openselfsup.evaluation.metrics.SCORES`, and ``top5``. None elsewhere.

    Raises:
        UserError: tiles of more classes than the head knows, or that cannot be read.
    """
    check_classes(model.head, int(labels.max()) + 1)
    found = extract_source(Scorer(model), source, size, 64, *normalise, amp, folder, resize=resize)
    if found is None:
        return None
    classes = int(model.head.num_classes)
    heads = found['features'].double().split(classes, 1)
    names = [f'stage{i}' for i in getattr(model.head, 'in_indices', [])] or ['head']
    return {name: _scores(scores.softmax(1).numpy(), labels, patients)
            for name, scores in zip(names, heads, strict=True)}


def _scores(probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray | None
            ) -> dict[str, Any]:
    found = with_intervals(score(labels, probabilities), bootstrap(
        labels, probabilities, patients))
    best = np.argsort(-probabilities, axis=1, kind='stable')[:, :5]
    return {**found, 'top5': dict(value=float((best == labels[:, None]).any(1).mean()))}
