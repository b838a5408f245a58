"""Features of any source of tiles, and the files that hold them."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from ..datasets.labeled import LabeledTileDataset
from ..datasets.sources import Source
from ..errors import UserError
from ..files import atomic_file
from ..training.features import extract_features, refuse_not_finite
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD
from .networks import weights_hash
from .ownership import digest


class _Unlabelled(Source):
    """A source with the label 0 everywhere, for datasets that insist on labels."""

    def __init__(self, source: Source):
        self.source, self.labels = source, np.zeros(len(source), np.int64)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> np.ndarray:
        return self.source.read(index)

    def path(self, index: int) -> str:
        return self.source.path(index)

    def stamp(self, index: int) -> Sequence[int] | None:
        return self.source.stamp(index)


def extract_source(backbone: nn.Module, source: Source, size: int, batch_size: int = 64,
                   mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD,
                   amp: str = 'off') -> Tensor:
    """Return globally averaged features of all tiles of a source, labelled or not.

    Args:
        backbone: maps images to a list of feature maps.
        source: N tiles.
        size: side of the input in pixels.
        batch_size: tiles of one forward pass.
        mean, std: normalisation of the input, for values in [0, 1].
        amp: 'off', 'bf16' or 'fp16'.

    Returns:
        float32 tensor of shape (N, C) on the CPU.

    Raises:
        UserError: tiles that cannot be read, or features that are not finite.
    """
    source.check()
    tiles = LabeledTileDataset(_Unlabelled(source), size, check=False)
    features = extract_features(backbone, tiles, batch_size, mean, std, amp)
    refuse_not_finite(features)
    return features


def inputs_of(backbone: nn.Module, source: Source, size: int, mean: Sequence[float],
              std: Sequence[float], amp: str) -> str:
    """Return one SHA-256 of all that features depend on: weights, tiles, input and precision.

    Args:
        backbone, source, size, mean, std, amp: as in :func:`extract_source`.
    """
    text = json.dumps([weights_hash(backbone), digest(source), size, list(map(float, mean)),
                       list(map(float, std)), amp])
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_other_features(out: str | Path, inputs: str) -> None:
    """Refuse to replace a file that holds something else than these features, computed before.

    Args:
        out: the file that is to be written.
        inputs: SHA-256 of all that the features depend on.

    Raises:
        UserError: the file is there, and is of other weights, tiles or settings, or of none.
    """
    if not Path(out).exists():
        return
    try:
        if Path(out).suffix == '.npz':
            with np.load(out) as file:
                found = str(file['inputs'])
        else:
            import h5py
            with h5py.File(out) as file:
                found = file['inputs'].asstr()[()]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        found = None
    if found != inputs:
        raise UserError('this file holds something else: features of other weights, tiles or '
                        'settings, or none that this version wrote', where=str(out),
                        expected='another name, or this file removed')


def write_features(out: str | Path, features: Tensor, source: Source, inputs: str) -> None:
    """Write features with the paths and labels of their tiles, at once or not at all.

    Args:
        out: a ``.npz`` or ``.h5`` file: ``features`` float32 (N, D), ``paths`` (N,), and
            ``labels`` int64 (N,) and ``classes`` (C,) where the source has them, ``inputs``.
        features: of the tiles, in the order of the source.
        source: the tiles.
        inputs: SHA-256 of all that the features depend on.
    """
    arrays = dict(features=features.numpy(), inputs=np.array(inputs),
                  paths=np.array([source.path(i) for i in range(len(source))]))
    if source.labels is not None:
        arrays['labels'] = source.labels
    if source.classes is not None:
        arrays['classes'] = np.array(source.classes)
    with atomic_file(out) as file:
        if Path(out).suffix == '.npz':
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub: any keyword
            return
        import h5py  # only those who want HDF5 files need it
        memory = io.BytesIO()  # HDF5 also reads what it writes, which this file does not allow
        with h5py.File(memory, 'w') as h5:
            for name, values in arrays.items():
                text = values.dtype.kind == 'U'
                if text:  # names of files as they are on the disk, UTF-8 or not
                    values = np.array([os.fsencode(value) for value in values.flat],
                                      object).reshape(values.shape)
                h5.create_dataset(name, data=values, dtype=h5py.string_dtype() if text else None)
        file.write(memory.getbuffer())
