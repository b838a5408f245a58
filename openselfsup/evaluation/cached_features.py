"""Cached features: every tile is decoded once and seen once by every network."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.identity import stamps
from ..datasets.labeled import LabeledTileDataset
from ..datasets.sources import Source
from ..files import atomic_file
from ..training.features import extract_features, refuse_not_finite
from .baselines import RANDOM_INIT, FeatureBank
from .classifier import TrainSettings
from .copies import pixel_number
from .data import Part
from .networks import reading_of, weights_hash
from .stages import STAGES_OF, Stages

CACHE = 'features.npz'
PARTS = 'train', 'test'


class Features:
    """Features of some training tiles and of all test tiles, by the name of what made them.

    Args:
        tiles: int64 array, the training tiles that have features, sorted.
        train_features: by name, float32 of shape (len(tiles), D).
        test: by name, float32 of shape (M, D).
        train_pixels, test_pixels: int64 of shapes (len(tiles),) and (M,), the same number for tiles
            of the same pixels as the networks see them.
        cached: whether they came from the disk.
        widths: of the stages of networks, by name, see :class:`.stages.Stages`.
    """

    def __init__(self, tiles: np.ndarray, train_features: dict[str, Tensor],
                 test: dict[str, Tensor], train_pixels: np.ndarray, test_pixels: np.ndarray,
                 cached: bool = False, widths: dict[str, list[int]] | None = None):
        self.tiles, self._train, self.test, self.cached = tiles, train_features, test, cached
        self._widths = widths or {}
        self._train_pixels, self.test_pixels = train_pixels, test_pixels

    def shared(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the test tiles whose pixels a training tile has, and one such tile for each."""
        test = np.flatnonzero(np.isin(self.test_pixels, self._train_pixels))
        order = np.argsort(self._train_pixels)
        found = np.searchsorted(self._train_pixels[order], self.test_pixels[test])
        return test, self.tiles[order[found]]

    def copies(self, indices: np.ndarray) -> np.ndarray:
        """Return the numbers of the pixels of training tiles by their index."""
        return self._train_pixels[np.searchsorted(self.tiles, indices)]

    def train(self, name: str, indices: np.ndarray) -> Tensor:
        """Return the features of training tiles by their index in the training part."""
        return self._train[name][torch.from_numpy(np.searchsorted(self.tiles, indices))]

    def by_stage(self, name: str, features: Tensor) -> tuple[Tensor, ...]:
        """Split features (N, sum of all widths) of the stages of a network."""
        return features.split(self._widths[name + STAGES_OF], 1)

    def names_for(self, seed_position: int) -> list[str]:
        """Return what to classify for one seed: everything, and one of the random inits."""
        names = [name for name in self.test if not name.endswith(STAGES_OF)]
        inits = [name for name in names if name.startswith(RANDOM_INIT)]
        others = [name for name in names if name not in inits]
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

    Raises:
        UserError: a tile cannot be read, or features are not finite.
    """
    parts = Part(train, needed), test
    key = _key(backbones, parts, settings, normalise, colours)
    widths = {name: backbone.widths for name, backbone in backbones.items()
              if isinstance(backbone, Stages)}
    found = _read(folder / CACHE, key)
    if found is not None:
        train_features, test_features, train_pixels, test_pixels = found
        return Features(needed, train_features, test_features, train_pixels, test_pixels,
                        cached=True, widths=widths)
    bank = FeatureBank(backbones, *normalise, colours=colours)
    bank.to(next(bank.parameters()).device)
    split, pixels = [], []
    for part in parts:
        tiles = _Numbered(LabeledTileDataset(part, settings.image_size, check=False))
        split.append(bank.split(extract_features(bank, tiles, settings.batch_size, *normalise,
                                                 settings.amp)))
        pixels.append(tiles.numbers)
        for name, values in split[-1].items():
            refuse_not_finite(values, of=name)
    arrays = {f'{part}/{name}': value.numpy() for part, values in zip(PARTS, split)
              for name, value in values.items()}
    arrays |= {f'{part}_pixels': numbers for part, numbers in zip(PARTS, pixels)}
    with atomic_file(folder / CACHE) as file:
        np.savez(file, key=np.array(key), **arrays)  # type: ignore[arg-type]  # any keyword
    return Features(needed, split[0], split[1], pixels[0], pixels[1], widths=widths)


class _Numbered:
    """Tiles whose pixels are numbered when they are read, see :func:`.copies.pixel_number`."""

    def __init__(self, tiles: LabeledTileDataset):
        self.tiles, self.numbers = tiles, np.zeros(len(tiles), np.int64)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        tile, label = self.tiles[index]
        self.numbers[index] = pixel_number(tile.numpy())
        return tile, label


def _key(backbones: dict[str, nn.Module], parts: tuple[Source, ...], settings: TrainSettings,
         normalise: tuple, colours: bool) -> str:
    tiles = [[[part.path(i), stamp] for i, stamp in enumerate(stamps(part))] for part in parts]
    text = json.dumps([list(backbones), tiles, settings.image_size, settings.amp,
                       [list(map(float, v)) for v in normalise], colours, 'pixels',
                       [reading_of(backbone) or None for backbone in backbones.values()]])
    return hashlib.sha256((text + weights_hash(*backbones.values())).encode()).hexdigest()


def _read(path: Path, key: str) -> tuple | None:
    """Return what a cache of this key holds, as Features wants it; None if there is none."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as saved:
            arrays = {name: saved[name] for name in saved.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # a damaged cache is none
        return None
    if str(arrays.get('key')) != key:
        return None
    features = [{name.removeprefix(f'{part}/'): torch.from_numpy(values)
                 for name, values in arrays.items() if name.startswith(f'{part}/')}
                for part in PARTS]
    return *features, *(arrays[f'{part}_pixels'] for part in PARTS)
