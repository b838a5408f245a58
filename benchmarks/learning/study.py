"""What is asked of every backbone of a study, and what was answered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from openselfsup.evaluation.dense.data import DenseData
from openselfsup.evaluation.dense.features import Layers
from openselfsup.evaluation.settings import FINETUNE, LINEAR

from . import classification, dense, glands, results, supervised
from .networks import RESNET18, Network
from .table import Found
from .tissue import Tiles


@dataclass
class Study:
    """Questions, and the folder of the answers.

    Attributes:
        folder: where answers are kept; what is there is not asked again.
        tiles: those that learn and those that are tested.
        size: side of the tiles in pixels.
        networks: kinds of backbones, by the name of a method or of random weights.
        images: with masks whose cells are probed, by name.
        layers: feature maps that are probed, see :meth:`.networks.Network.cells`.
        epochs: of the supervised baseline, see :func:`.supervised.evaluate`.
        detection: data sets of :func:`.glands.prepare`, or None to segment no glands.
        iterations: of a detector's fine-tuning.
        device: of what trains and of the backbones, 'cpu', or 'cuda' for a GPU if there is one.
        seeds: how many are in the tables; more may have been answered.
    """

    folder: Path
    tiles: tuple[Tiles, Tiles]
    size: int
    networks: Mapping[str, Network] = field(
        default_factory=lambda: {RESNET18.name: RESNET18})
    images: dict[str, DenseData] = field(default_factory=dict)
    layers: tuple[str, ...] = dense.LAYERS
    epochs: int = 0
    detection: Path | None = None
    iterations: int = 0
    device: str = 'cpu'
    seeds: int = 1

    @cached_property
    def cells(self) -> dict[str, dict[str, Layers]]:
        """The cells that are probed of each kind of backbone, by its name."""
        return {one.name: one.cells(self.layers)
                for one in {one.name: one for one in self.networks.values()}.values()}

    def of_glands(self, detector: str) -> str:
        """Return what the answers of detectors of a config are called."""
        return f'{glands.DETECTORS[detector]}, {self.iterations} iterations'

    def evaluate(self, name: str, checkpoint: Path | None, seed: int) -> None:
        """Ask one backbone or baseline whatever it was not asked yet."""
        if name == supervised.name_of(self.epochs):
            supervised.evaluate(seed, self.tiles, self.size, self.epochs, self._answers('tiles'),
                                self.device)
            return
        network = self.networks.get(name)  # None for colours
        classification.evaluate(name, network, checkpoint, seed, self.tiles, self.size,
                                self._answers('tiles'), self.device)
        cells = [self.cells[network.name]] if network else list(self.cells.values())
        for key, data in self.images.items():
            dense.evaluate(name, network, checkpoint, seed, data, cells, self._answers(key),
                           self.device)
        if self.detection and network and (detector := glands.detector_of(network)):
            glands.evaluate(name, network, checkpoint, seed, self.detection, self.iterations,
                            self._answers(self.of_glands(detector)), self.device)

    def estimates(self, names: list[str]) -> Found:
        """Return every score of some names, and every difference of two, by question."""
        values: dict[str, dict[str, np.ndarray]] = {}

        def add(key: str, found: dict[str, dict[str, np.ndarray]]) -> None:
            values.update({f'{key}: {question}': by_name for question, by_name in found.items()})

        alone = supervised.name_of(self.epochs)
        add('tiles', results.classification(self.tiles[1], self._read('tiles', [
            name for name in names if name != alone])))
        if alone in names and (read := self._read('tiles', [alone])):
            # Not frozen features, and so in the tables of those that labels teach the most about.
            for question, by_name in results.classification(self.tiles[1], read).items():
                values[f'tiles: {question.replace(FINETUNE, LINEAR)}'] |= by_name
        for key, data in self.images.items():
            add(key, results.dense(data.cases('test'), self._read(key, names),
                                   dense.questions(list(self.cells.values()))))
        for detector in glands.DETECTORS if self.detection else ():
            if read := self._read(key := self.of_glands(detector), names):
                add(key, results.glands(read))
        return {question: results.estimates(by_name, names)
                for question, by_name in values.items()}

    def _answers(self, key: str) -> Path:
        (self.folder / key).mkdir(parents=True, exist_ok=True)
        return self.folder / key

    def _read(self, key: str, names: list[str]) -> dict[str, list[dict[str, np.ndarray]]]:
        return results.by_name(self.folder / key, names, self.seeds)
