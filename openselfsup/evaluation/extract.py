"""Features of any source of tiles, by one process or several, and the files that hold them."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import distributed
from ..datasets.labeled import LabeledTileDataset
from ..datasets.sources import Source
from ..datasets.tile_error import read_checked
from ..errors import UserError
from ..files import atomic_file
from ..training.features import extract_features, feature_maps, refuse_not_finite
from .networks import reading_of, weights_hash
from .ownership import digest
from .stages import every_stage

#: Sides to which the map of each stage is pooled, as published: about 9,000 numbers of a ResNet-50.
SIDES = (12, 6, 4, 3, 2)


class _Unlabelled(Source):
    """Some tiles, or all, with the label 0 everywhere, for datasets that insist on labels."""

    def __init__(self, source: Source, tiles: Sequence[int] | np.ndarray | None = None):
        self.source = source
        self.tiles = np.arange(len(source)) if tiles is None else np.asarray(tiles, np.int64)
        self.labels = np.zeros(len(self.tiles), np.int64)

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, index: int) -> np.ndarray:
        return read_checked(self.source, int(self.tiles[index]))

    def path(self, index: int) -> str:
        return self.source.path(int(self.tiles[index]))

    def stamp(self, index: int) -> Sequence[int] | None:
        return self.source.stamp(int(self.tiles[index]))


def extract_source(backbone: nn.Module, source: Source, size: int, batch_size: int,
                   mean: Sequence[float], std: Sequence[float], amp: str, folder: Path,
                   stages: Sequence[int] = (), resize: int | None = None
                   ) -> dict[str, Tensor] | None:
    """Extract the features of all tiles of a source, labelled or not.

    Args:
        backbone: maps images to a list of feature maps.
        source: N tiles; each of several processes takes a part of them.
        size: side of the input in pixels.
        batch_size: tiles of one forward pass.
        mean, std: normalisation of the input, for values in [0, 1].
        amp: 'off', 'bf16' or 'fp16'.
        folder: where the processes hand their parts to rank 0.
        stages: maps to return in place of the average of the last one, pooled to
            :data:`SIDES`, see :func:`.stages.every_stage`.
        resize: short side of a tile before the crop to ``size``, the same if None.

    Returns:
        On rank 0 ``features`` of shape (N, C), or ``feat1`` ... ``feat5`` of the stages 0 ... 4, as
        published, each (N, C · side²), float32 on the CPU; None elsewhere.

    Raises:
        UserError: tiles that cannot be read, features that are not finite, no such stage, or
            fewer tiles than processes.
    """
    source.check()
    if len(source) < distributed.world_size():
        raise UserError(f'{distributed.world_size()} processes have {len(source)} tiles',
                        where='--launcher', expected='at least one tile each')
    own = np.array_split(np.arange(len(source)), distributed.world_size())[distributed.rank()]
    tiles = LabeledTileDataset(_Unlabelled(source, own), size, resize, check=False)
    found = _pooled_stages(backbone, tiles, stages, batch_size, mean, std, amp) if stages \
        else dict(features=extract_features(backbone, tiles, batch_size, mean, std, amp))
    for name, values in found.items():
        refuse_not_finite(values, of=name)
    if distributed.world_size() == 1:
        return found
    parts = [folder / f'.part_{rank}.npz' for rank in range(distributed.world_size())]
    with atomic_file(parts[distributed.rank()]) as file:
        np.savez(file, **{k: v.numpy() for k, v in found.items()})  # type: ignore[arg-type]
    distributed.barrier()
    if not distributed.is_main():
        return None
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in found}
    for path in parts:
        with np.load(path) as part:
            for name, own_pieces in pieces.items():
                own_pieces.append(part[name])
        path.unlink()
    return {name: torch.from_numpy(np.concatenate(ones)) for name, ones in pieces.items()}


def _pooled_stages(backbone: nn.Module, tiles: LabeledTileDataset, stages: Sequence[int],
                   batch_size: int, mean: Sequence[float], std: Sequence[float], amp: str
                   ) -> dict[str, Tensor]:
    """Return the features of each stage as ``feat{stage + 1}``."""
    parts: list[list[Tensor]] = [[] for _ in stages]
    with every_stage(backbone):
        for maps in feature_maps(backbone, tiles, batch_size, mean, std, amp):
            if wrong := [stage for stage in stages if not 0 <= stage < len(maps)]:
                raise UserError(f'this backbone has no stage {wrong[0]}', where='--layer-ind',
                                expected=f'numbers from 0 to {len(maps) - 1}')
            for part, stage in zip(parts, stages):
                part.append(F.adaptive_avg_pool2d(maps[stage].float(), SIDES[min(stage, 4)])
                            .flatten(1).cpu())
    return {f'feat{stage + 1}': torch.cat(part) for stage, part in zip(stages, parts)}


def inputs_of(backbone: nn.Module, source: Source, size: int, mean: Sequence[float],
              std: Sequence[float], amp: str, stages: Sequence[int] = ()) -> str:
    """Return one SHA-256 of all that features depend on: backbone, tiles, input and precision.

    Args:
        backbone, source, size, mean, std, amp, stages: as in :func:`extract_source`.
    """
    text = json.dumps([weights_hash(backbone), digest(source), size, list(map(float, mean)),
                       list(map(float, std)), amp, *([list(stages)] if stages else []),
                       *reading_of(backbone)])
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


def write_features(out: str | Path, features: Mapping[str, Tensor], source: Source,
                   inputs: str) -> None:
    """Write features with the paths and labels of their tiles, at once or not at all.

    Args:
        out: a ``.npz`` or ``.h5`` file: each of ``features``, ``paths`` (N,), and
            ``labels`` int64 (N,) and ``classes`` (C,) where the source has them, ``inputs``.
        features: by name, float32 (N, D), in the order of the source.
        source: the tiles.
        inputs: SHA-256 of all that the features depend on.
    """
    arrays = {name: values.numpy() for name, values in features.items()}
    arrays |= dict(inputs=np.array(inputs),
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
