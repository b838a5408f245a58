"""Cached features: every tile is decoded once and seen once by every network."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.labeled import LabeledTileDataset
from ..datasets.sources import Source
from ..training.precision import DTYPES
from .baselines import RANDOM_INIT, FeatureBank
from .data import Part
from .finetune import TrainSettings
from .knn import extract_features
from .networks import weights_hash

CACHE = 'features.npz'


class Features:
    """Features of some training tiles and of all test tiles, by the name of what made them.

    Args:
        tiles: int64 array, the training tiles that have features, sorted.
        train_features: by name, float32 of shape (len(tiles), D).
        test: by name, float32 of shape (M, D).
        cached: whether they came from the disk.
    """

    def __init__(self, tiles: np.ndarray, train_features: dict[str, Tensor],
                 test: dict[str, Tensor], cached: bool = False):
        self.tiles, self._train, self.test, self.cached = tiles, train_features, test, cached

    def train(self, name: str, indices: np.ndarray) -> Tensor:
        """Return the features of training tiles by their index in the training part."""
        return self._train[name][torch.from_numpy(np.searchsorted(self.tiles, indices))]

    def names_for(self, seed_position: int) -> list[str]:
        """Return what to classify for one seed: everything, and one of the random inits."""
        inits = [name for name in self.test if name.startswith(RANDOM_INIT)]
        others = [name for name in self.test if name not in inits]
        return others + inits[seed_position % len(inits):][:1] if inits else others


def extract_all(backbones: dict[str, nn.Module], train: Source, needed: np.ndarray, test: Source,
                settings: TrainSettings, normalise: tuple[Sequence[float], Sequence[float]],
                folder: Path, colours: bool = True) -> Features:
    """Extract the features of training tiles ``needed`` and of the test, or read them.

    What ``folder`` holds is used only if weights, tiles (path, size, time), image size,
    precision and normalisation are the same.

    Args:
        backbones: networks by name.
        train: training tiles.
        needed: indices of those that are labelled, sorted.
        test: test tiles.
        settings: image size, batch size and precision are used.
        normalise: mean and std of the input.
        folder: where ``features.npz`` is kept.
        colours: add the colour baselines.
    """
    parts = Part(train, needed), test
    key = _key(backbones, parts, settings, normalise, colours)
    found = _read(folder / CACHE, key)
    if found is not None:
        return Features(needed, *found, cached=True)
    bank = FeatureBank(backbones, *normalise, colours=colours)
    bank.to(next(bank.parameters()).device)
    split = []
    for part in parts:
        tiles = LabeledTileDataset(part, settings.image_size, check=False)
        split.append(bank.split(extract_features(bank, tiles, settings.batch_size, *normalise,
                                                 autocast=DTYPES[settings.amp])))
    arrays = {f'{part}/{name}': value.numpy() for part, values in zip(('train', 'test'), split)
              for name, value in values.items()}
    np.savez(folder / CACHE, key=np.array(key), **arrays)
    return Features(needed, *split)


def _key(backbones: dict[str, nn.Module], parts: tuple[Source, ...], settings: TrainSettings,
         normalise: tuple, colours: bool) -> str:
    tiles = [[_stamp(part.path(i)) for i in range(len(part))] for part in parts]
    text = json.dumps([list(backbones), tiles, settings.image_size, settings.amp,
                       [list(map(float, v)) for v in normalise], colours])
    return hashlib.sha256((text + weights_hash(*backbones.values())).encode()).hexdigest()


def _stamp(path: str) -> list:
    file = Path(path)
    if not file.is_file():  # a tile inside a container such as HDF5
        return [path]
    status = file.stat()
    return [path, status.st_size, status.st_mtime_ns]


def _read(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    if not path.is_file():
        return None
    with np.load(path) as saved:
        if str(saved['key']) != key:
            return None
        parts: dict[str, dict[str, Tensor]] = dict(train={}, test={})
        for name in saved.files:
            if '/' in name:
                part, _, short = name.partition('/')
                parts[part][short] = torch.from_numpy(saved[name])
    return parts['train'], parts['test']
