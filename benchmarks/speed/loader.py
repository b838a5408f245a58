"""From files to batches with two workers: views, and raw tiles for views on a device."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from torch.utils.data import DataLoader

from openselfsup.datasets import ImageFolder, TileDataset, ViewLoader, pack
from openselfsup.training.preprocessor import Preprocessor

from . import published
from .step import NORMALIZE
from .tiles import MOCO, write_tiffs
from .timing import Case

WORKERS, BATCH = 2, 64
RAW_BATCH = 256  # of the published recipe, on one GPU
RECIPE = dict(type='ViewRecipe', size=224, steps=MOCO)


def loader_cases(tiles: int = 512, raw_tiles: int = 2048) -> Iterator[Case]:
    """Yield an epoch of views, and one of raw tiles, from files that the system has cached.

    Args:
        tiles: uncompressed TIFF files of an epoch of views.
        raw_tiles: the same of an epoch of raw tiles.
    """
    folder = write_tiffs(max(tiles, raw_tiles))
    paths = sorted(str(path) for path in Path(folder.name).glob('*.tif'))
    yield _views_case(ImageFolder(folder.name), paths, tiles)
    with tempfile.TemporaryDirectory(prefix='speed_') as store:
        yield _feed_case(pack(ImageFolder(folder.name), store), paths, raw_tiles)
    folder.cleanup()


def _views_case(source: ImageFolder, paths: list[str], tiles: int) -> Case:
    source.paths = source.paths[:tiles]
    loader = ViewLoader(TileDataset(source, RECIPE), BATCH, workers=WORKERS)
    theirs = _processes(published.PILDataset(paths[:tiles]))
    normalize = Preprocessor(**NORMALIZE)

    def normalised() -> None:
        for batch in loader:
            normalize(batch)

    others = {'ours, with the normalisation that a GPU would do': normalised,
              **_others(paths[:tiles])}
    return Case('loader', f'{tiles} TIFF files to batches of two views, {WORKERS} workers',
                lambda: exhaust(loader), lambda: exhaust(theirs), others,
                items=tiles // BATCH * BATCH, unit='tiles/s', calls=1)


def _feed_case(source, paths: list[str], tiles: int) -> Case:
    loader = ViewLoader(TileDataset(source, RECIPE), RAW_BATCH, workers=WORKERS, render='device')
    files = ViewLoader(TileDataset(ImageFolder(str(Path(paths[0]).parent)), RECIPE), RAW_BATCH,
                       workers=WORKERS, render='device')
    theirs = _processes(published.PILTiles(paths[:tiles]), RAW_BATCH)
    return Case('feed', f'{tiles} raw tiles to batches of {RAW_BATCH} with their draws, '
                        f'{WORKERS} workers: packed against TIFF files in processes',
                lambda: exhaust(loader), lambda: exhaust(theirs),
                {'ours from TIFF': lambda: exhaust(files)},
                items=tiles // RAW_BATCH * RAW_BATCH, unit='tiles/s', calls=1)


def _processes(dataset, batch: int = BATCH) -> DataLoader:
    return DataLoader(dataset, batch, shuffle=True, num_workers=WORKERS, drop_last=True,
                      persistent_workers=True)


def _others(paths: list[str]) -> dict[str, Callable[[], object]]:
    if not importlib.util.find_spec('lightly'):
        return {}
    from lightly.transforms import MoCoV2Transform
    theirs = _processes(_Transformed(paths, MoCoV2Transform(input_size=224)))
    return {'lightly': lambda: exhaust(theirs)}


class _Transformed(published.PILTiles):
    def __init__(self, paths: list[str], transform: Callable):
        super().__init__(paths)
        self.transform = transform

    def __getitem__(self, index: int):
        return self.transform(published.read_pil(self.paths[index]))


def exhaust(batches: Iterable) -> None:
    """Take all batches."""
    for _ in batches:
        pass
