"""OpenSelfSup's extraction: which tiles its ``--dataset-config`` names, and the files it writes."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..datasets.sources import Source
from ..errors import UserError, located
from ..files import atomic_file, read_json, write_json
from . import reading
from .tiles import open_tiles

INPUTS = 'inputs.json'


class Tiles(NamedTuple):
    """Tiles to extract features of.

    Attributes:
        source: the tiles.
        size: side of the input in pixels, None where it is not said.
        splits: parts of them by name.
    """

    source: Source
    size: int | None
    splits: dict[str, slice]


def read_dataset_config(path: str | Path) -> Tiles:
    """Read a published ``benchmarks/extract_info/*.py``.

    ``data.extract`` holds a list of images and their folder, the last ``size`` of its pipeline is
    the side of the input; ``split_at`` cuts the tiles into the parts that ``split_name`` names.

    Raises:
        UserError: the file is missing, no Python, or says something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError('no such file', where=located(path))
    published = reading.read(path)
    values = published.values
    try:
        extract, names, cuts = values['data']['extract'], values['split_name'], values['split_at']
    except (KeyError, TypeError) as error:
        raise UserError(f'{error} is missing', where=str(path), expected='data.extract with '
                        'data_source (type, list_file, root), split_name and split_at') from None
    if len(names) != len(cuts) + 1:
        raise UserError(f'{len(cuts)} cuts make no {len(names)} parts', where=str(path),
                        expected='one cut less than names')
    source, sides = open_tiles(extract, ('data', 'extract'), published)
    ends = [0, *cuts, len(source)]
    if ends != sorted(ends):
        raise UserError(f'split_at is {cuts}', where=str(path),
                        expected=f'rising numbers up to {len(source)}, the number of tiles')
    return Tiles(source, sides[-1][1] if sides else None,
                 dict(zip(names, map(slice, ends, ends[1:]))))


def refuse_other_splits(folder: Path, inputs: str) -> None:
    """Refuse a folder that holds features of other weights, tiles or settings.

    Raises:
        UserError: it does, or holds files of no known origin.
    """
    if not any(folder.glob('*.npy')):
        return
    known = folder / INPUTS
    if not known.is_file() or read_json(known) != dict(inputs=inputs):
        raise UserError('this folder holds other features', where=str(folder),
                        expected='another --work_dir, or this folder removed')


def write_splits(folder: Path, features: Mapping[str, Tensor], splits: Mapping[str, slice],
                 inputs: str) -> None:
    """Write ``SPLIT_NAME.npy``, float32 (N, D), for every part and every kind of features.

    Args:
        folder: where they go, and what they were made of.
        features: by name, in the order of the tiles.
        splits: parts of the tiles by name.
        inputs: SHA-256 of all that the features depend on.
    """
    write_json(folder / INPUTS, dict(inputs=inputs))
    for name, values in features.items():
        for split, part in splits.items():
            with atomic_file(folder / f'{split}_{name}.npy') as file:
                np.save(file, values[part].numpy())
