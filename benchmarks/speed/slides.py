"""Tiles of 224 px from a slide: ours, OpenSlide tile by tile, tifffile, and JPEG decoding."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile
import torch

from openselfsup.datasets.slides import Slides
from openselfsup.datasets.slides.bounded import PIXELS
from openselfsup.datasets.slides.tiff import TiffSlide

from .loader import exhaust
from .slide_files import demo_tissue, write_slide
from .timing import Case, on_threads

SIDE = 224


def slide_cases(tiles: int = 256, side: int = 9000) -> Iterator[Case]:
    """Yield the reading of the same tiles from an Aperio SVS in a disk's cache, by one core.

    Args:
        tiles: of an epoch.
        side: of the slide in pixels.
    """
    with tempfile.TemporaryDirectory(prefix='speed_') as folder:
        path = Path(folder, 'slide.svs')
        write_slide(path, demo_tissue(side, side, 300), 0.5, kind='svs', downsamples=(1, 4, 16))
        options = dict(root=str(path), size=SIDE, tiles_per_epoch=tiles, masks=folder)
        source, alone = Slides(**options), Slides(**options, tiles_per_region=1)
        yield Case('slides', f'{tiles} tiles of {SIDE} px at random places of a slide of JPEG '
                             'tiles of 256 px, four side by side, against OpenSlide tile by tile',
                   on_threads(1, lambda: exhaust(_epoch(source))), _openslide(alone),
                   {'each on its own': on_threads(1, lambda: exhaust(_epoch(alone))),
                    'tifffile': _tifffile(alone), 'decoding of native tiles': _decoding(source),
                    **({'OpenSlide at our places': work} if (work := _openslide(source)) else {}),
                    **({'wsistream': stream} if (stream := _wsistream(path, tiles)) else {})},
                   items=tiles, unit='tiles/s', calls=1)


def _order(source: Slides) -> list[int]:
    return source.permutation(torch.Generator().manual_seed(0)).tolist()


def _epoch(source: Slides) -> Iterator:
    PIXELS.clear()  # what the repeat before has decoded
    return map(source.read, _order(source))


def _boxes(source: Slides) -> list[tuple[int, int]]:
    """Return where the tiles of an epoch lie: x, y."""
    regions = [source.place(i)[1] for i in _order(source)]
    return [(region.left, region.top) for region in regions]


def _openslide(source: Slides) -> Callable[[], object] | None:
    if not importlib.util.find_spec('openslide'):
        return None
    import openslide
    boxes, path = _boxes(source), source.slides[0].path

    def read() -> None:
        with openslide.OpenSlide(path) as slide:
            for box in boxes:
                np.asarray(slide.read_region(box, 0, (SIDE, SIDE)).convert('RGB'))

    return on_threads(1, read)


def _wsistream(path: Path, tiles: int) -> Callable[[], object] | None:
    """Let wsistream draw as many tiles of its own from tissue that it has found before."""
    if not importlib.util.find_spec('wsistream'):
        return None
    from wsistream.backends import OpenSlideBackend
    from wsistream.pipeline import PatchPipeline
    from wsistream.sampling import RandomSampler
    stream = iter(PatchPipeline(
        slide_paths=[str(path)], backend=OpenSlideBackend(), cycle=True, seed=0, pool_size=1,
        sampler=RandomSampler(patch_size=SIDE, num_patches=-1, target_mpp=0.5),
        patches_per_slide=10 ** 9, tissue_mask_cache_size=1))
    next(stream)  # the mask

    def read() -> None:
        for _ in range(tiles):
            next(stream)

    return on_threads(1, read)


def _tifffile(source: Slides) -> Callable[[], object]:
    """Read the native tiles below each tile by tifffile's own segments."""
    boxes, path = _boxes(source), source.slides[0].path

    def read() -> None:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            columns, side = -(-page.imagewidth // page.tilewidth), page.tilewidth
            for x, y in boxes:
                out = np.empty((SIDE, SIDE, 3), np.uint8)
                for row in range(y // side, (y + SIDE - 1) // side + 1):
                    for column in range(x // side, (x + SIDE - 1) // side + 1):
                        index = row * columns + column
                        file.filehandle.seek(page.dataoffsets[index])
                        data = file.filehandle.read(page.databytecounts[index])
                        tile = page.decode(data, index, jpegtables=page.jpegtables)[0][0]
                        top, left = row * side - y, column * side - x
                        t, u = max(top, 0), max(left, 0)
                        part = tile[t - top:SIDE - top, u - left:SIDE - left]
                        out[t:t + part.shape[0], u:u + part.shape[1]] = part

    return on_threads(1, read)


def _decoding(source: Slides) -> Callable[[], object]:
    """Decode as many native tiles as an epoch has tiles, each of which is smaller than one."""
    slide = source.slides[0]
    assert isinstance(slide, TiffSlide)
    head = slide._pages[0].head
    assert head
    middle = (slide.height // 512) * -(-slide.width // 256)  # where no glass is
    streams = [head + slide.stored(0, middle + 4 + i % 16)[2:] for i in range(len(source))]
    return on_threads(1, lambda: exhaust(map(simplejpeg.decode_jpeg, streams)))
