"""All tissue of one slide as a grid of tiles, for features of whole slides."""

import numpy as np

from ..sources import Source
from .slide import Region, Slide
from .tissue import TissueMap


class SlideGrid(Source):
    """The tiles of one slide that lie side by side from its upper left corner and hold tissue.

    Args:
        slide: the slide.
        tissue: where its tissue is.
        mpp: micrometres per pixel of the tiles.
        size: their side in pixels.
        least: share of a tile that tissue has to cover.

    Attributes:
        regions: where the tiles lie, row by row.
    """

    def __init__(self, slide: Slide, tissue: TissueMap, mpp: float, size: int, least: float = 0.5):
        self.slide, self.size, self.tile_size = slide, size, (size, size)
        level, side = slide.level_for(mpp), slide.side(mpp, size)
        wide, high = side / level.width, side / level.height
        self.regions = [
            Region(level, left, top, side, side)
            for top in range(0, level.height - side + 1, side)
            for left in range(0, level.width - side + 1, side)
            if tissue.share(left / level.width, top / level.height, wide, high) >= least]

    def __len__(self) -> int:
        return len(self.regions)

    def read(self, index: int) -> np.ndarray:
        return self.slide.read(self.regions[index], self.size)

    def path(self, index: int) -> str:
        return self.slide.name(self.regions[index])

    def stamp(self, index: int) -> tuple[int, int] | None:
        return self.slide.stamp

    def coords(self) -> np.ndarray:
        """Return the upper left corners in pixels of the base level, int64 (N, 2): x, y."""
        return np.array([[round(value) for value in region.box[:2]] for region in self.regions],
                        np.int64).reshape(-1, 2)
