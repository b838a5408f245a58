"""Where a slide has tissue: a mask at low resolution, without pen, folds, blur and blank glass."""

import dataclasses
from typing import Annotated

import cv2
import numpy as np

from ...values import NotNegative, Part, Range
from .slide import Slide

_VERSION = 3  # in the name of a mask: raise it where the same settings give another one
_IN_FOCUS = 64  # micrometres of the side over which the variance of edges is taken
_LEAST = 13  # of 255: saturation that glass can have; Otsu on a blank slide would part its noise


@dataclasses.dataclass(frozen=True)
class Tissue:
    """What counts as tissue.

    Args:
        mpp: micrometres per pixel of the mask.
        min_share: share of a tile that tissue must cover, 0 to 1.
        pen: leave out marks of green, blue, red and black pens.
        fold: leave out folds: what is dark and saturated beyond ``fold`` standard deviations of
            the slide's tissue (saturation less brightness: Kothari et al., "Eliminating tissue-fold
            artifacts in histopathological whole-slide images", 2013); 0 keeps them.
        blur: leave out what is out of focus: where the variance of the Laplacian of brightness at
            2 micrometres per pixel, over 64 micrometres, is below this; 0 keeps it. It costs most
            of a mask's time.
        smallest: pieces of tissue, and holes in it, below this area in square millimetres are
            left out or filled.
    """

    mpp: Annotated[float, Range(1)] = 8.0
    min_share: Part = 0.5
    pen: bool = True
    fold: NotNegative = 4.0
    blur: NotNegative = 40.0
    smallest: NotNegative = 0.01

    @property
    def name(self) -> str:
        """The settings that a mask depends on, as part of a file's name."""
        return (f'v{_VERSION}-mpp{self.mpp:g}-pen{self.pen:d}-fold{self.fold:g}-blur{self.blur:g}'
                f'-smallest{self.smallest:g}')

    def mask(self, slide: Slide) -> np.ndarray:
        """Return where a slide has tissue, bool (H, W), pixels of ``mpp`` micrometres."""
        image = slide.overview(self.mpp)
        mask = tissue_of(image)
        if self.pen:
            mask &= ~pen_of(image)
        if self.fold:
            mask &= ~folds_of(image, mask, self.fold)
        if self.blur and mask.any():
            mask &= sharp(slide, mask.shape, self.blur)
        return tidy(mask, max(round(self.smallest * 1e6 / self.mpp ** 2), 1))


def tissue_of(image: np.ndarray) -> np.ndarray:
    """Return what is coloured: HSV saturation above Otsu's threshold (Otsu 1979).

    Args:
        image: uint8 (H, W, 3), RGB.

    Returns:
        bool (H, W).
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    saturation = cv2.medianBlur(np.ascontiguousarray(hsv[..., 1]), 5)
    # Of very dark pixels the saturation is noise.
    saturation[hsv[..., 2] < 30] = 0
    threshold, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    # On a slide that is tissue to its edges Otsu parts pale tissue from dark: glass has less than
    # this whatever Otsu says.
    return saturation > min(max(threshold, _LEAST), 2.5 * _LEAST)


def pen_of(image: np.ndarray) -> np.ndarray:
    """Return marks of pens, and a margin, bool (H, W).

    Tissue stained with H&E or DAB has hues from violet over red to brown: green, cyan and pure blue
    are ink. Red ink is far more saturated than eosin, black ink has no colour.

    Args:
        image: uint8 (H, W, 3), RGB.
    """
    hue, saturation, value = (np.ascontiguousarray(part) for part in cv2.split(
        cv2.cvtColor(cv2.medianBlur(image, 3), cv2.COLOR_RGB2HSV)))
    cold = (hue > 35) & (hue < 122) & (saturation > 60) & (value > 20)
    red = ((hue < 8) | (hue > 174)) & (saturation > 140) & (value > 70)
    black = (value < 50) & (saturation < 120)
    marks = cv2.morphologyEx((cold | red | black).astype(np.uint8), cv2.MORPH_OPEN,
                             np.ones((3, 3), np.uint8))
    return cv2.dilate(marks, np.ones((5, 5), np.uint8)).astype(bool)


def folds_of(image: np.ndarray, tissue: np.ndarray, deviations: float) -> np.ndarray:
    """Return what is dark and saturated far beyond the rest of the tissue, bool (H, W).

    Args:
        image: uint8 (H, W, 3), RGB.
        tissue: bool (H, W).
        deviations: how far, in robust standard deviations of saturation less brightness.
    """
    if not tissue.any():
        return np.zeros_like(tissue)
    hsv = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), (0, 0), 1.5).astype(np.float32)
    score = hsv[..., 1] - hsv[..., 2]
    middle = np.median(score[tissue])
    spread = 1.4826 * np.median(np.abs(score[tissue] - middle))
    return tissue & (score > middle + deviations * max(spread, 12))


def sharp(slide: Slide, shape: tuple[int, int], least: float) -> np.ndarray:
    """Return what is in focus, bool ``shape``.

    Args:
        slide: the slide.
        shape: of the mask.
        least: variance of the Laplacian.
    """
    mpp = max(2., slide.mpp)
    cell = max(round(_IN_FOCUS / mpp / 8), 1)  # pixels of a side
    moments = []  # of the cells: the whole at 2 micrometres per pixel would be gigabytes
    for strip in slide.strips(mpp, cell):
        edges = cv2.Laplacian(cv2.cvtColor(strip, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
        size = tuple(max(round(n / cell), 1) for n in edges.shape[::-1])
        moments.append([cv2.resize(values, size, interpolation=cv2.INTER_AREA)
                        for values in (edges, edges * edges)])
    side = max(round(_IN_FOCUS / mpp / cell), 3)
    mean, squares = (cv2.blur(np.concatenate(parts), (side, side)) for parts in zip(*moments))
    return cv2.resize(squares - mean * mean, shape[::-1], interpolation=cv2.INTER_AREA) >= least


def tidy(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Fill small holes and leave out small pieces of a mask.

    Args:
        mask: bool (H, W).
        smallest: pixels of the smallest piece or hole that stays.
    """
    for value in (0, 1):  # holes first
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            (mask == value).astype(np.uint8), connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < smallest
        small[0] = False
        if count > 1:
            mask = np.where(small[labels], not value, mask)
    return mask


class TissueMap:
    """A mask from which points are drawn, packed to bits.

    Args:
        mask: bool (H, W).

    Attributes:
        shape: (H, W).
        area: pixels of tissue.
    """

    def __init__(self, mask: np.ndarray):
        self.shape = mask.shape
        self._bits = np.packbits(mask, axis=1)
        self._ends = np.cumsum(mask.sum(1, dtype=np.int64))
        self.area = int(self._ends[-1]) if len(self._ends) else 0

    def mask(self) -> np.ndarray:
        """Return the mask, bool (H, W)."""
        return self._rows(0, self.shape[0])

    def _rows(self, top: int, bottom: int) -> np.ndarray:
        return np.unpackbits(self._bits[top:bottom], axis=1, count=self.shape[1]).astype(bool)

    def point(self, place: float, x: float, y: float) -> tuple[float, float]:
        """Return a point of the tissue in shares of the slide's width and height.

        Args:
            place: which pixel of the tissue, a share of its area in [0, 1).
            x, y: where in the pixel, in [0, 1).
        """
        number = min(int(place * self.area), self.area - 1)
        row = int(np.searchsorted(self._ends, number, 'right'))
        before = self._ends[row - 1] if row else 0
        column = np.flatnonzero(self._rows(row, row + 1)[0])[number - before]
        return float((column + x) / self.shape[1]), float((row + y) / self.shape[0])

    def share(self, left: float, top: float, width: float, height: float) -> float:
        """Return how much of a box, in shares of the slide, is tissue."""
        rows, columns = self.shape
        y0, y1 = int(top * rows), max(int(np.ceil((top + height) * rows)), int(top * rows) + 1)
        x0, x1 = int(left * columns), max(int(np.ceil((left + width) * columns)),
                                          int(left * columns) + 1)
        found = self._rows(max(y0, 0), min(y1, rows))[:, max(x0, 0):x1]
        return float(found.mean()) if found.size else 0.


def whole(slide: Slide, mpp: float) -> TissueMap:
    """Return the map of a slide that is taken as tissue from edge to edge."""
    size = (max(round(n * slide.mpp / mpp), 1) for n in (slide.height, slide.width))
    return TissueMap(np.ones(tuple(size), bool))
