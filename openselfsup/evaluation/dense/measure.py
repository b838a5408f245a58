"""Learn from the patches of training images, predict the pixels of test images."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import UserError
from ...training.normalization import IMAGENET_MEAN, IMAGENET_STD
from ..fitted import Fitted
from ..settings import DENSE_PROTOCOLS
from .data import DenseData
from .features import Layers, patch_features
from .masks import MaskedImages
from .probes import PROBES, Patches, draw_patches, patch_labels, upsample
from .scores import confusion

PATCHES = 20_000
_BATCH_PIXELS = 16 * 224 ** 2  # of a batch of images


@dataclass
class Measured:
    """One probe on one choice of features, tested once.

    Attributes:
        protocol: name and version.
        layers: the feature maps.
        fitted: the probe.
        patches: how many it learnt from.
        confusions: of each test image, int64 array of shape (N, C, C), see
            :func:`.scores.confusion`.
        predictions: classes uint8 (H, W) of the test images that were to be kept, by index.
        seconds: time of fitting and predicting, without the features.
    """

    protocol: str
    layers: Layers
    fitted: Fitted
    patches: int
    confusions: np.ndarray
    predictions: dict[int, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0


def measure(backbone: nn.Module, data: DenseData, layers: Sequence[Layers], scale: float = 1.0,
            protocols: Sequence[str] = DENSE_PROTOCOLS, patches: int = PATCHES, seed: int = 0,
            mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD,
            amp: str = 'off', colours: bool = False,
            keep: Collection[int] = ()) -> list[Measured]:
    """Probe the patches of a frozen backbone. Nothing is written.

    Args:
        backbone: maps images to a list of feature maps; it keeps its mode.
        data: training and test images.
        layers: choices of feature maps, see :func:`.features.find_layers`.
        scale: of the sides of images.
        protocols: names of :data:`.probes.PROBES`.
        patches: how many are learnt from at most, equally many of each training image.
        seed: draws these, and the training cases that choose a penalty.
        mean, std: normalisation of the backbone's input, for values in [0, 1].
        amp: precision of the backbone.
        colours: the features are colours.
        keep: indices of test images whose predictions are returned.

    Returns:
        One for each choice of layers and protocol.
    """
    cases = data.cases('train')
    learnt = _learn(backbone, data, layers, scale, patches, seed, mean, std, amp)
    found = []
    for chosen, memory in zip(layers, learnt):
        for protocol in protocols:
            start = time.perf_counter()
            fitted = PROBES[protocol](memory, cases, seed, colours)
            found.append(Measured(protocol, chosen, fitted, len(memory.features), np.zeros(
                (len(data.test), len(data.classes), len(data.classes)), np.int64),
                seconds=time.perf_counter() - start))
    del learnt
    for indices, maps in patch_features(backbone, data.test, layers, scale, _batch(
            data.test, scale), mean, std, amp):
        truths = [data.test.read_labels(i) for i in indices]
        for one in found:
            start = time.perf_counter()
            _predict(one, maps[layers.index(one.layers)], indices, truths, keep)
            one.seconds += time.perf_counter() - start
    return found


def _learn(backbone: nn.Module, data: DenseData, layers: Sequence[Layers], scale: float,
           patches: int, seed: int, mean: Sequence[float], std: Sequence[float],
           amp: str) -> list[Patches]:
    """Return the patches of each choice of layers; equal grids draw the same ones."""
    each, classes = max(1, patches // len(data.train)), len(data.classes)
    # More images than patches: some of them give one each.
    giving = np.random.default_rng([seed, 0]).permutation(len(data.train))[:patches]
    taken = np.isin(np.arange(len(data.train)), giving)
    kept: list[list[tuple[Tensor, Tensor, np.ndarray]]] = [[] for _ in layers]
    for indices, maps in patch_features(backbone, data.train, layers, scale, _batch(
            data.train, scale), mean, std, amp):
        for place, i in enumerate(indices):
            truth = data.train.read_labels(i) if taken[i] else None
            for part, features in zip(kept, maps):
                if truth is None:
                    continue
                shares = patch_labels(truth, (features.shape[2], features.shape[3]), classes)
                chosen = draw_patches(shares, each, np.random.default_rng([seed, 1, i]))
                part.append((features[place].flatten(1)[:, chosen].T.contiguous(),
                             torch.from_numpy(shares.reshape(-1, classes)[chosen]),
                             np.full(len(chosen), i)))
    return [_joined(part, data.train) for part in kept]


def _joined(parts: list[tuple[Tensor, Tensor, np.ndarray]], images: MaskedImages) -> Patches:
    features, shares, owners = zip(*parts)
    if not sum(map(len, features)):
        raise UserError('no pixel of the training masks counts', where=images.masks.path(0),
                        expected='masks with values other than 255')
    return Patches(torch.cat(features), torch.cat(shares), np.concatenate(owners))


def _predict(one: Measured, maps: Tensor, indices: range, truths: list[np.ndarray],
             keep: Collection[int]) -> None:
    """Add the confusion matrices of a batch, and keep its predictions where they are wanted."""
    b, d, h, w = maps.shape
    distributions = one.fitted.probabilities(maps.permute(0, 2, 3, 1).reshape(b * h * w, d))
    for i, truth, own in zip(indices, truths, distributions.view(b, h, w, -1)):
        found = upsample(own, (truth.shape[0], truth.shape[1]))
        one.confusions[i] = confusion(truth, found, one.confusions.shape[1])
        if i in keep:
            one.predictions[i] = found


def _batch(images: MaskedImages, scale: float) -> int:
    """Return how many images fill a batch."""
    largest = max(header.height * header.width for header in images.check())
    return int(np.clip(_BATCH_PIXELS / (largest * scale ** 2), 1, 64))
