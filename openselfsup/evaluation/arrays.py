"""``arrays.npz``: what a report draws from, beside the ``results.json`` of the same run.

=================== ======================================================================
array               meaning
=================== ======================================================================
created             time of the results that it belongs to
main_row            index of the row that the pictures show
test_paths          (M,), where the test tiles lay
labels              int64 (M,), classes of the test tiles
probabilities       (M, C), what the main row says of them
features            float16 (M, D), of the test tiles, each divided by its length
neighbours          int64 (M, k), the nearest labelled tiles of each, indices of the next two
neighbour_paths     (U,), where those lay
neighbour_labels    int64 (U,), their classes
=================== ======================================================================
"""

import zipfile
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..datasets.sources import Source
from ..errors import UserError
from ..files import atomic_file
from .knn import nearest_tiles

ARRAYS = 'arrays.npz'
NEIGHBOURS = 5


def write_arrays(folder: Path, created: str, main_row: int, probabilities: np.ndarray,
                 train: tuple[Source, np.ndarray, Tensor], test: tuple[Source, Tensor]) -> None:
    """Write ``arrays.npz`` into a folder, at once or not at all.

    Args:
        folder: of the results.
        created: time of the results.
        main_row: index of the row that the pictures show.
        probabilities: float array of shape (M, C), what that row says of the test tiles.
        train: the training tiles, the indices (N,) of those that were labelled for that row, and
            the features (N, D) of these.
        test: the test tiles and their features (M, D).
    """
    (source, indices, bank), (test_source, features) = train, test
    _, near = nearest_tiles(bank, features, min(NEIGHBOURS, len(indices)))
    used, position = np.unique(indices[near.numpy()], return_inverse=True)
    arrays = dict(
        created=created, main_row=main_row,
        test_paths=np.array([test_source.path(i) for i in range(len(test_source))]),
        labels=np.asarray(test_source.labels, np.int64), probabilities=probabilities,
        # Only directions are drawn, and float16 ends at 65,504.
        features=F.normalize(features.float(), dim=1).half().numpy(),
        neighbours=position.reshape(near.shape),
        neighbour_paths=np.array([source.path(int(i)) for i in used]),
        neighbour_labels=source.require_labels()[used])
    with atomic_file(folder / ARRAYS) as file:
        np.savez_compressed(file, **arrays)


def read_arrays(folder: Path, created: str) -> dict[str, np.ndarray] | None:
    """Return the arrays in a folder; None if there are none, or only those of other results.

    Args:
        folder: of the results.
        created: time of the results: an evaluation that has not finished may have left those of
            an earlier one.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / ARRAYS
    if not path.is_file():
        return None
    try:
        with np.load(path) as saved:
            arrays = {name: saved[name] for name in saved.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise UserError('this file is damaged', where=str(path),
                        expected='that of the evaluation, or none: then the report has no pictures'
                        ) from None
    return arrays if str(arrays.get('created', created)) == created else None
