"""``dense.json``: what a dense evaluation found, and ``dense.npz``: what it is computed from.

======= ========================================================================================
schema  what changed
======= ========================================================================================
1       the first form
======= ========================================================================================

``dense.npz`` holds ``draws_mdice`` and ``draws_miou`` (rows, R), bootstrap values by the rows of
``dense.json``, all of the same resamples; ``confusions`` (rows, N, C, C), pixels of each test
image indexed by true and predicted class; ``test_paths``, ``test_masks`` and ``test_cases`` (N,);
``shown`` (S,), indices of the test images in the pictures, ``truth_INDEX`` (H, W), their classes,
and ``found_ROW_INDEX`` (H, W), what was found in them.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ...files import atomic_file, read_json
from ..results import plain

FILE, ARRAYS, VERSION = 'dense.json', 'dense.npz', 1


@dataclass
class DenseRow:
    """One probe, tested once.

    Attributes:
        protocol: name and version, e.g. 'dense-knn-v1'.
        features: 'checkpoint' or a baseline.
        layers: feature maps, counted from 1, e.g. '3+4'; colours take patches of the same grid.
        stride: pixels of the resized image from one patch to the next.
        scale: of the sides of the images.
        seed: draws patches, validation cases and the initialisation of untrained networks.
        train_patches, test_images: how many.
        settings: all that defines the protocol.
        chosen: what was selected on training cases.
        scores: ``mdice`` and ``miou``, each with value, low and high.
        by_class: ``dice`` and ``iou`` of each class by its name, likewise; null where it is
            neither there nor predicted.
        confusion: C x C pixels of all test images, indexed by true and predicted class.
        seconds: time of fitting and predicting, without the features.
    """

    protocol: str
    features: str
    layers: str
    stride: int
    scale: float
    seed: int
    train_patches: int
    test_images: int
    settings: dict[str, Any]
    chosen: dict[str, Any]
    scores: dict[str, Any]
    by_class: dict[str, Any]
    confusion: list[list[int]]
    seconds: float


@dataclass
class DenseResults:
    """Everything that a dense evaluation found.

    Fields as in :class:`~openselfsup.evaluation.results.Results`.
    """

    created: str
    environment: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    rows: list[DenseRow] = field(default_factory=list)
    request: dict[str, Any] = field(default_factory=dict)
    schema: int = VERSION

    def write(self, folder: str | Path) -> Path:
        """Write ``dense.json`` into a folder, at once or not at all, and return its path."""
        path = Path(folder) / FILE
        text = json.dumps(plain(dataclasses.asdict(self)), indent=1, allow_nan=False)
        with atomic_file(path) as file:
            file.write(f'{text}\n'.encode())
        return path


def write_arrays(folder: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write ``dense.npz`` into a folder, at once or not at all."""
    with atomic_file(Path(folder) / ARRAYS) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_dense(folder: str | Path) -> DenseResults:
    """Read the ``dense.json`` of a folder.

    Raises:
        UserError: no such file, no JSON, another version, or fields that are missing.
    """
    path = Path(folder) / FILE
    found = read_json(path)
    if not isinstance(found, dict) or found.get('schema') != VERSION:
        raise UserError('is of another form', where=str(path), expected=f'schema {VERSION}')
    try:
        rows = [DenseRow(**row) for row in found.pop('rows')]
        return DenseResults(**found, rows=rows)
    except (TypeError, KeyError) as error:
        raise UserError(f'lacks a field or has one too many: {error}', where=str(path),
                        expected=f'what schema {VERSION} holds') from None
