"""The source of tiles that are read from whole slides while a model trains."""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch

from ... import distributed
from ...errors import UserError, listed, nearest
from ...registry import SOURCES
from ...values import Count, Positive, Range, annotations, fault
from ..parallel import DISK_THREADS, parallel_map
from ..sources import Source
from ..tile_error import MIN_SIZE
from .dicom import slide_names
from .masks import tissue_masks
from .opening import find_slides, open_slide
from .slide import Region, Slide, SlideError, few_natives
from .table import Row, read_table
from .tissue import Tissue, TissueMap

logger = logging.getLogger(__name__)

_TRIES = 24  # places that are tried for a tile with enough tissue; the best is taken
_LOW_HIGH = ('low', 'high')


@SOURCES.register_module()
class Slides(Source):
    """Tiles cut anywhere in the tissue of whole slides, new ones in every epoch; none on disk.

    Tile i of epoch e follows from (seed, e, i) and the slides alone. ``tiles_per_region``
    neighbours lie side by side around one point, moved by at most half a native tile of the file to
    where fewest of these have to be decoded; their magnification is the same.

    Args:
        root: a folder of slides, searched in depth, a slide, a glob, or a list of these.
        mpp: micrometres per pixel of the tiles: a number, a list of numbers to draw from, or
            ``dict(low=0.25, high=1.0)`` to draw from uniformly.
        size: side of a tile in pixels.
        context: side in pixels of what views are cut from, with the tile in its middle: at least
            ``size``, which it is by default. With a larger one, views can be moved instead of
            enlarged (extended-context translation: Zimmermann et al., "Virchow2", 2024).
        tiles_per_epoch: what counts as an epoch.
        tissue: settings of :class:`.Tissue`; False takes every slide from edge to edge.
        sampling: 'area' draws slides by their area of tissue, 'slides' all alike.
        table: a CSV file with a column ``slide`` and any of ``weight`` (times the above),
            ``label``, ``mpp`` (where files do not tell it or are wrong) and others.
        groups: a column of the table, such as ``patient``: its values are seen alike.
        tiles_per_region: neighbours that share their decoding; 1 for tiles that lie anywhere, each
            on its own.
        seed: of the places.
        masks: folder of the tissue masks; below ~/.cache by default.

    Attributes:
        slides: those that can be used.
        names: what they are called, among all that are there.
        maps: their tissue.
        left_out: what is wrong with the others.
        areas: of their tissue in square millimetres, float64 (slides,).
        weights: how often each slide is seen, float64 (slides,), sum 1.

    Raises:
        UserError: no slide that can be used, or arguments that do not fit.
    """

    endless = True

    def __init__(self, root: str | Sequence[str],
                 mpp: Positive | Sequence[Positive] | dict = 0.5,
                 size: Annotated[int, Range(MIN_SIZE)] = 224, tiles_per_epoch: Count = 100_000,
                 context: Count | None = None, tissue: bool | dict = True,
                 sampling: Literal['area', 'slides'] = 'area', table: str | None = None,
                 groups: str | None = None, tiles_per_region: Count = 4,
                 seed: Annotated[int, Range(0)] = 0, masks: str | None = None):
        self.size, self.context = size, context or size
        if self.context < size:
            raise UserError(f'context={context} is smaller than size={size}', where='context',
                            expected=f'at least {size}')
        if sampling not in ('area', 'slides'):
            raise UserError(f'{sampling!r} is unknown', where='sampling',
                            expected="'area' or 'slides'")
        if groups and not table:
            raise UserError('groups are columns of a table, but there is no table',
                            where='groups', expected="table='slides.csv'")
        self.tiles_per_epoch, self.seed = tiles_per_epoch, seed
        self.tiles_per_region, self.grouped = tiles_per_region, tiles_per_region > 1
        self._mpp = _Magnification.of(mpp)
        self.tissue = _tissue_of(tissue)
        self.tile_size = (self.context, self.context)
        found = find_slides(root)
        rows = dict.fromkeys(found, Row()) if table is None else read_table(table, found, groups)
        self._open(rows, masks)
        named = dict(zip(found, slide_names(found)))
        self.names = [named[slide.path] for slide in self.slides]
        self._rows = [rows[slide.path] for slide in self.slides]
        self.areas = np.array([
            area.area / math.prod(area.shape) * slide.width * slide.height * (slide.mpp / 1e3) ** 2
            for slide, area in zip(self.slides, self.maps)])
        self.weights = self._weigh(sampling)
        self._bounds = np.cumsum(self.weights)
        if self._rows[0].label is not None:
            names = [str(row.label) for row in self._rows]
            self.classes = sorted(set(names))
            self.slide_labels = np.array([self.classes.index(name) for name in names], np.int64)
            self.labels = np.array([self.slide_labels[self._draw_slide(i)[1]]
                                    for i in range(len(self))], np.int64)

    def __len__(self) -> int:
        return self.tiles_per_epoch

    def read(self, index: int) -> np.ndarray:
        slide, region = self.place(index)
        return slide.read(region, self.context)

    def path(self, index: int) -> str:
        """Return slide and place, ``FILE#xywh=LEFT,TOP,WIDTH,HEIGHT`` in pixels of its base."""
        slide, region = self.place(index)
        return slide.name(region)

    def stamp(self, index: int) -> Sequence[int] | None:
        return self.slides[self._draw_slide(index)[1]].stamp

    def files(self) -> list[str]:
        return [slide.path for slide in self.slides]

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of the tiles, the smallest where several are drawn from."""
        return self._mpp.extremes[0]

    def permutation(self, generator: torch.Generator) -> np.ndarray:
        size = self.tiles_per_region
        regions = torch.randperm(-(-len(self) // size), generator=generator).numpy()
        order = (regions[:, None] * size + np.arange(size)).reshape(-1)
        return order[order < len(self)]

    def label(self, index: int) -> int | None:
        if self.labels is None:
            return None
        return int(self.slide_labels[self._draw_slide(index)[1]])

    def group(self, index: int) -> str | None:
        """Return the group of the slide of tile ``index``, None without groups."""
        return self._rows[self._draw_slide(index)[1]].group

    def place(self, index: int) -> tuple[Slide, Region]:
        """Return where a tile, with its context, is cut from."""
        rng, number = self._draw_slide(index)
        slide, tissue = self.slides[number], self.maps[number]
        mpp = self._mpp.draw(rng)
        side = slide.side(mpp, self.size) * slide.level_for(mpp).downsample
        x, y = self._point(rng, slide, tissue, side)
        member = index % self.tiles_per_epoch % self.tiles_per_region
        cells = rng.permutation(self.tiles_per_region)  # the first holds the point
        x, y = self._beside(slide, x, y, mpp, int(cells[0]), int(cells[member]))
        if not self._holds(slide, tissue, x, y, side):  # beyond the edge of the tissue
            own = np.random.default_rng((self.seed, *self._numbers(index), member + 1))
            x, y = self._point(own, slide, tissue, side)
        return slide, slide.region(x, y, mpp, self.context)

    def _beside(self, slide: Slide, x: float, y: float, mpp: float, first: int, cell: int
                ) -> tuple[float, float]:
        """Return the middle of a cell of the region whose cell ``first`` lies around (x, y).

        A region of several is moved to where it needs the fewest native tiles.
        """
        level, side = slide.level_for(mpp), slide.side(mpp, self.size)
        columns = math.ceil(math.sqrt(self.tiles_per_region))
        rows = -(-self.tiles_per_region // columns)
        middle = []
        for axis, (point, count, own, other) in enumerate((
                (x, columns, first % columns, cell % columns),
                (y, rows, first // columns, cell // columns))):
            corner = point / level.downsample - (own + 0.5) * side
            if level.native and self.grouped:
                corner = few_natives(corner, count * side, level.native[axis])
            middle.append((corner + (other + 0.5) * side) * level.downsample)
        return middle[0], middle[1]

    def _numbers(self, index: int) -> tuple[int, int]:
        """Return epoch and region of a tile."""
        epoch, tile = divmod(index, self.tiles_per_epoch)
        return epoch, tile // self.tiles_per_region

    def _draw_slide(self, index: int) -> tuple[np.random.Generator, int]:
        rng = np.random.default_rng((self.seed, *self._numbers(index)))
        number = int(np.searchsorted(self._bounds, rng.random() * self._bounds[-1], 'right'))
        return rng, min(number, len(self.slides) - 1)

    def _point(self, rng: np.random.Generator, slide: Slide, tissue: TissueMap, side: float
               ) -> tuple[float, float]:
        """Return a point around which a tile has enough tissue."""
        best = (0., 0., -1.)
        for _ in range(_TRIES):
            x, y = tissue.point(*rng.random(3))
            x, y = x * slide.width, y * slide.height
            share = self._share(slide, tissue, x, y, side)
            if share > best[2]:
                best = x, y, share
            if share >= self._least:
                break
        return best[:2]

    @property
    def _least(self) -> float:
        return self.tissue.min_share if self.tissue else 0.

    def _share(self, slide: Slide, tissue: TissueMap, x: float, y: float, side: float) -> float:
        return tissue.share((x - side / 2) / slide.width, (y - side / 2) / slide.height,
                            side / slide.width, side / slide.height)

    def _holds(self, slide: Slide, tissue: TissueMap, x: float, y: float, side: float) -> bool:
        half = side / 2
        return (half <= x <= slide.width - half and half <= y <= slide.height - half
                and self._share(slide, tissue, x, y, side) >= self._least)

    def _open(self, rows: Mapping[str, Row], masks: str | None) -> None:
        """Open the slides, make their masks; leave out, and count, what cannot be used."""
        def open_one(path: str) -> Slide:
            slide = open_slide(path, rows[path].mpp)
            for mpp in self._mpp.extremes:
                slide.region(0, 0, mpp, self.context)
            return slide

        opened = parallel_map(open_one, list(rows), DISK_THREADS)
        good = [slide for slide in opened if isinstance(slide, Slide)]
        self.left_out = [error for error in opened if isinstance(error, SlideError)]
        first = len(good) * distributed.rank() // distributed.world_size()
        made = tissue_masks(good, self.tissue, masks, first) if good else []
        self.left_out += [error for error in made if isinstance(error, SlideError)]
        kept = [(slide, area) for slide, area in zip(good, made) if isinstance(area, TissueMap)]
        self.slides, self.maps = [slide for slide, _ in kept], [area for _, area in kept]
        what = f'{len(self.left_out)} of {len(kept) + len(self.left_out)} slides cannot be used'
        if not kept:
            raise UserError(listed(what, self.left_out) if self.left_out else
                            'the table names no slide', where='dataset.source.root')
        if self.left_out:
            self.passed_over = f'{what}; the run goes on without them'
            if distributed.is_main():
                logger.warning('%s', listed(what, self.left_out))

    def _weigh(self, sampling: str) -> np.ndarray:
        weights = np.array([row.weight for row in self._rows])
        if sampling == 'area':
            weights *= self.areas
        if not weights.sum():
            raise UserError('the weight of every slide is 0', where='dataset.source.table')
        names = [row.group for row in self._rows]
        if names[0] is not None:
            totals = {name: sum(w for w, n in zip(weights, names) if n == name)
                      for name in set(names)}
            weights = np.array([w / (totals[n] or 1) for w, n in zip(weights, names)])
        return weights / weights.sum()


@dataclasses.dataclass(frozen=True)
class _Magnification:
    """Micrometres per pixel to draw from: some values, or a range."""

    values: tuple[float, ...]
    uniform: bool = False

    @classmethod
    def of(cls, mpp: Any) -> '_Magnification':
        uniform = isinstance(mpp, Mapping)
        if uniform and sorted(mpp) != sorted(_LOW_HIGH):
            raise UserError(f'a range has the keys low and high, not {sorted(mpp)}', where='mpp',
                            expected='dict(low=0.25, high=1.0)')
        values = (tuple(mpp[key] for key in _LOW_HIGH) if uniform
                  else tuple(mpp) if isinstance(mpp, Sequence) else (mpp,))
        if not values or not all(isinstance(v, (int, float)) and 0 < v < 100 for v in values) \
                or uniform and values[0] > values[1]:
            raise UserError(f'{mpp!r} is no magnification', where='mpp', expected='a number of '
                            'micrometres per pixel, a list of them, or dict(low=0.25, high=1.0)')
        return cls(tuple(map(float, values)), uniform)

    @property
    def extremes(self) -> tuple[float, float]:
        return min(self.values), max(self.values)

    def draw(self, rng: np.random.Generator) -> float:
        if self.uniform:
            return float(rng.uniform(*self.extremes))
        return self.values[int(rng.integers(len(self.values)))]


def _tissue_of(settings: bool | Mapping) -> Tissue | None:
    if isinstance(settings, bool):
        return Tissue() if settings else None
    known = annotations(Tissue)
    for name, value in settings.items():
        if name not in known:
            raise UserError(f"there is no setting '{name}'", where='tissue',
                            expected=', '.join(known), nearest=nearest(name, known))
        if wrong := fault(value, known[name]):
            raise UserError(wrong, where=f'tissue.{name}')
    return Tissue(**settings)
