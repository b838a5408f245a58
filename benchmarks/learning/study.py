"""What is asked of every backbone of a study, and what was answered."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from openselfsup.evaluation.dense.data import DenseData
from openselfsup.evaluation.settings import FINETUNE, LINEAR

from . import classification, dense, glands, results, supervised
from .classification import COLOURS
from .table import Found
from .tissue import Tiles


@dataclass
class Study:
    """Questions, and the folder of the answers.

    Attributes:
        folder: where answers are kept; what is there is not asked again.
        tiles: those that learn and those that are tested.
        size: side of the tiles in pixels.
        images: with masks whose cells are probed, by name.
        layers: feature maps that are probed, see :func:`.dense.evaluate`.
        epochs: of the supervised baseline, see :func:`.supervised.evaluate`.
        detection: data sets of :func:`.glands.prepare`, or None to segment no glands.
        iterations: of a detector's fine-tuning.
        device: of these two.
    """

    folder: Path
    tiles: tuple[Tiles, Tiles]
    size: int
    images: dict[str, DenseData] = field(default_factory=dict)
    layers: tuple[str, ...] = dense.LAYERS
    epochs: int = 0
    detection: Path | None = None
    iterations: int = 0
    device: str = 'cpu'

    @property
    def of_glands(self) -> str:
        """What the answers of detectors are called."""
        return f'glands of GlaS, {self.iterations} iterations'

    def evaluate(self, name: str, checkpoint: Path | None, seed: int) -> None:
        """Ask one backbone or baseline whatever it was not asked yet."""
        if name == supervised.name_of(self.epochs):
            supervised.evaluate(seed, self.tiles, self.size, self.epochs, self._answers('tiles'),
                                self.device)
            return
        classification.evaluate(name, checkpoint, seed, self.tiles, self.size,
                                self._answers('tiles'))
        for key, data in self.images.items():
            dense.evaluate(name, checkpoint, seed, data, self._answers(key), self.layers)
        if self.detection and name not in COLOURS:
            glands.evaluate(name, checkpoint, seed, self.detection, self.iterations,
                            self._answers(self.of_glands), self.device)

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
            add(key, results.dense(data.cases('test'), self._read(key, names)))
        if self.detection and (read := self._read(self.of_glands, names)):
            add(self.of_glands, results.glands(read))
        return {question: results.estimates(by_name, names)
                for question, by_name in values.items()}

    def _answers(self, key: str) -> Path:
        (self.folder / key).mkdir(parents=True, exist_ok=True)
        return self.folder / key

    def _read(self, key: str, names: list[str]) -> dict[str, list[dict[str, np.ndarray]]]:
        return results.by_name(self.folder / key, names)
