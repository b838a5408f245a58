"""The training dataset: tiles and the views drawn from them."""

import logging
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..registry import DATASETS
from ..values import Count
from ..views import Draws, Geometry, UnionView, ViewRecipe, render_opencv, unbind
from .headers import TileError
from .memory import Allocate, recycled
from .packed import PackedTiles
from .recipes import Recipe, build_recipes, view_recipes
from .sources import Source, build_source
from .tile_error import read_checked

logger = logging.getLogger(__name__)


@DATASETS.register_module()
class TileDataset:
    """Tiles of which every batch gets V views with known geometry.

    Args:
        source: where the tiles come from (``type`` in SOURCES).
        recipe: what the views undergo (``type`` in RECIPES): one for all views, or one for each
            view under its name, ``dict(strong=..., weak=...)``, or a list of one per view.
        n_views: views per tile; 2 by default. Several recipes set it.
        on_corrupt: what happens when a tile turns out to be unreadable during training:
            'skip' takes the next readable tile in its place and logs its path once, 'raise'
            stops.
        check: check existence and headers of all tiles now (seconds for 100,000).

    Attributes:
        recipes: the V recipes.
        view_names: the V names; 'view 1', 'view 2', ... where the recipes have none.
        recipe_paths: where each of the V recipes stands in a config.
        geometry: 'axis_aligned', 'affine' or 'none', whatever all views are at most.
        corrupt: path and error of every unreadable tile met so far.

    Raises:
        UserError: unusable tiles (all are reported together), or a recipe that cannot be
            built (the step is named).
    """

    def __init__(self, source: dict | Source, recipe: dict | Recipe | Sequence[dict | Recipe],
                 n_views: Count | None = None, on_corrupt: Literal['skip', 'raise'] = 'skip',
                 check: bool = True):
        if on_corrupt not in ('skip', 'raise'):
            raise UserError(f'{on_corrupt!r} is unknown', where='dataset.on_corrupt',
                            expected="'skip' or 'raise'")
        views = view_recipes(recipe, n_views)
        self.view_names = list(views)
        self.recipe_paths = [path for path, _ in views.values()]
        self.recipes = build_recipes(views)
        self.geometry = _weakest([recipe.geometry for recipe in self.recipes])
        self.source = build_source(source)
        self.on_corrupt = on_corrupt
        self.corrupt: dict[str, str] = {}
        if check:
            self.source.check()

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Read tile ``index``, or the next readable one if tiles may be skipped.

        Returns:
            uint8 array of shape (H, W, 3) and the index of the tile that it is.

        Raises:
            TileError: the tile is unreadable and ``on_corrupt`` is 'raise'.
            UserError: no tile at all can be read.
        """
        for step in range(len(self)):
            epoch, number = divmod(index, len(self))  # epoch 0, unless the source is endless
            place = epoch * len(self) + (number + step) % len(self)
            try:
                return read_checked(self.source, place), place
            except TileError as error:
                if self.on_corrupt == 'raise':
                    raise
                # Tiles that are never seen again are counted by what is damaged below them.
                where = str(error) if self.source.endless else self.source.path(place)
                self.report_corrupt({where: str(error)})
        raise UserError('not one tile of this source can be read any more',
                        where=self.source.path(index))

    def report_corrupt(self, found: dict[str, str]) -> None:
        """Remember unreadable tiles, their path and error, and log those that are new."""
        for path, error in found.items():
            # One thread finds its own error remembered. No lock: a fork might find it closed.
            if self.corrupt.setdefault(path, error) is error:
                logger.warning('tile skipped: %s', error)

    @property
    def bytes_per_tile(self) -> int:
        """Size of all views of one tile."""
        return sum(3 * math.prod(recipe.size) for recipe in self.recipes)

    def batch(self, indices: Sequence[int], generator: torch.Generator | Draws,
              render: str = 'cpu', allocate: Allocate = recycled) -> dict:
        """Make one batch: read the tiles, draw all views, render them.

        Args:
            indices: B tiles.
            generator: the source of all random numbers: torch's, or draws by which the views of a
                tile depend on its own key only.
            render: 'cpu' for views; 'device' for raw tiles with the same draws, to be
                rendered where the model is. That needs tiles of one size.
            allocate: where images go: called with their shape (B, S, S, 3) once for each view,
                or for the tiles.

        Returns:
            ``views``: V uint8 tensors of shape (B, 3, S, S), channels_last in memory, and
            ``view_to_tile``: float32 (B, V, 2, 3), None if the recipes' geometry is 'none';
            or, for 'device', ``tiles``: uint8 (B, 3, H, W) and ``draw``: V dicts of
            parameters. Always ``index``: int64 (B,), the tiles that were read, and
            ``label``: int64 (B,) if the source has labels.
        """
        generator = Draws.of(generator, len(indices))
        if render == 'device' and isinstance(self.source, PackedTiles):
            return self._raw_batch(self.source, np.asarray(indices), generator, allocate)
        tiles, read = zip(*(self.read(int(index)) for index in indices))
        sizes = torch.tensor([tile.shape[:2] for tile in tiles])  # B x 2
        draws = self._draw(sizes, generator)
        batch: dict = dict(index=torch.tensor(read))
        if self.source.labels is not None:
            batch['label'] = torch.tensor([self.source.label(place) for place in read])
        if render == 'device':
            return dict(tiles=self._stack(tiles, read, allocate), draw=draws, **batch)
        views, maps = zip(*(_render(tiles, recipe, draw, allocate, path) for recipe, draw, path
                            in zip(self.recipes, draws, self.recipe_paths)))
        return dict(views=list(views), **batch,
                    view_to_tile=None if self.geometry == 'none' else torch.stack(maps, 1))

    def _raw_batch(self, source: PackedTiles, indices: np.ndarray, generator: Draws,
                   allocate: Allocate) -> dict:
        """Make a batch of raw tiles that all have one size without looking at each of them."""
        sizes = torch.tensor(source.tile_size).expand(len(indices), 2)
        draws = self._draw(sizes, generator)
        tiles = allocate((len(indices), *source.tile_size, 3))
        source.gather(indices, tiles.numpy())
        batch = dict(tiles=tiles.permute(0, 3, 1, 2), draw=draws,
                     index=torch.from_numpy(indices).long())
        if self.source.labels is not None:
            batch['label'] = torch.from_numpy(self.source.labels[indices])
        return batch

    def _draw(self, sizes: Tensor, generator: Draws) -> list[dict[str, Tensor]]:
        """Draw the views of tiles of these (height, width), (B, 2): parameters for each view."""
        recipe, count = self.recipes[0], len(self.recipes)
        views = [generator.of_view(number) for number in range(count)]
        if any(other is not recipe for other in self.recipes):
            draws = {name: recipe.draw(sizes, view) for name, recipe, view
                     in zip(self.view_names, self.recipes, views)
                     if not isinstance(recipe, UnionView)}
            return [recipe.around([draws[held] for held in recipe.of], sizes)
                    if isinstance(recipe, UnionView) else draws[name]
                    for name, recipe in zip(self.view_names, self.recipes)]
        # All views at once: the time goes into the number of operations, not into their size.
        drawn = recipe.draw(sizes.repeat(count, 1), Draws.joined(views))
        return [dict(zip(drawn, view)) for view in zip(*(d.chunk(count) for d in drawn.values()))]

    def _stack(self, tiles: Sequence[np.ndarray], read: Sequence[int],
               allocate: Allocate) -> Tensor:
        """Return tiles of one size as (B, 3, H, W)."""
        for tile, index in zip(tiles, read):
            if tile.shape != tiles[0].shape:
                raise UserError(
                    f'this tile has {tile.shape[1]} x {tile.shape[0]} px, others have '
                    f'{tiles[0].shape[1]} x {tiles[0].shape[0]}', where=self.source.path(index),
                    expected="tiles of one size for render='device'")
        out = allocate((len(tiles), *tiles[0].shape))
        for slot, tile in zip(out.numpy(), tiles):
            slot[:] = tile
        return out.permute(0, 3, 1, 2)


def _weakest(geometries: list[Geometry]) -> Geometry:
    return max(geometries, key=('axis_aligned', 'affine', 'none').index)


def _render(tiles: Sequence[np.ndarray], recipe: Recipe, draw: dict[str, Tensor],
            allocate: Allocate, where: str) -> tuple[Tensor, Tensor | None]:
    """Render one view of every tile: (B, 3, S, S), and the maps to the tiles (B, 2, 3)."""
    memory = allocate((len(tiles), *recipe.size, 3))
    out = memory.permute(0, 3, 1, 2)
    work = zip(tiles, unbind(draw), memory.numpy())
    if isinstance(recipe, ViewRecipe):
        for tile, parameters, slot in work:
            render_opencv(tile, recipe, parameters, slot)
        return out, draw['view_to_tile']
    try:  # here the maps are known after rendering only
        maps = [recipe.render(tile, parameters, slot) for tile, parameters, slot in work]
    except ValueError as error:
        raise UserError(str(error), where=where) from error
    if recipe.geometry == 'none':
        return out, None
    return out, torch.from_numpy(np.array(maps, np.float32))
