"""An epoch of decoded tiles in random order from shards: ours, WebDataset's loader, litdata's."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

from openselfsup.datasets import ImageFolder
from openselfsup.datasets.shard_writer import write_shards
from openselfsup.datasets.shards import Shards

from .loader import exhaust
from .tiles import write_jpegs
from .timing import Case, on_threads

SHARD_MB = 4
BUFFER = 1000  # tiles that WebDataset's own documentation shuffles


def shard_cases(tiles: int = 2048) -> Iterator[Case]:
    """Yield the reading of JPEG tiles from a disk's cache by one process on one core.

    Args:
        tiles: of an epoch.
    """
    with write_jpegs(tiles) as files, tempfile.TemporaryDirectory(prefix='speed_') as store:
        ours = write_shards(ImageFolder(files), Path(store, 'tar'), shard_mb=SHARD_MB)
        webdataset = _webdataset(Path(store, 'tar'))
        others = _litdata(sorted(Path(files).iterdir()), Path(store, 'litdata'))
        yield Case('shards', f'{tiles} JPEG tiles in random order from tar shards of '
                             f'{SHARD_MB} MB, against the loader of WebDataset on the same shards',
                   on_threads(1, lambda: exhaust(_epoch(ours))), webdataset, others,
                   items=tiles, unit='tiles/s', calls=1)


def _epoch(source: Shards) -> Iterator:
    return map(source.read, source.permutation(torch.Generator().manual_seed(0)))


def _webdataset(folder: Path) -> Callable[[], object] | None:
    if not importlib.util.find_spec('webdataset'):
        return None
    import webdataset
    data = webdataset.WebDataset([str(path) for path in sorted(folder.glob('*.tar'))],
                                 shardshuffle=100).shuffle(BUFFER).decode('rgb8').to_tuple('jpg')
    return on_threads(1, lambda: exhaust(data))


def _litdata(files: list[Path], folder: Path) -> dict[str, Callable[[], object]]:
    if not importlib.util.find_spec('litdata'):
        return {}
    import litdata
    litdata.optimize(Image.open, list(map(str, files)), str(folder), chunk_bytes=f'{SHARD_MB}MB',
                     num_workers=1)
    data = litdata.StreamingDataset(str(folder), shuffle=True)
    return {'litdata': on_threads(1, lambda: exhaust(data))}
