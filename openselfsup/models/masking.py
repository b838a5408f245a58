"""Which patches a student does not see: blocks (iBOT, arXiv 2111.07832; DINOv2; DINOv3).

Masks are drawn on the CPU, where their number is known without waiting for a device, and depend
on a key and on the number of the crop in the global batch: on no rank, and on no generator that
ranks would have to share.
"""

import math
from typing import NamedTuple

import numpy as np

_TRIES, _SMALLEST, _ASPECT = 10, 4, 0.3  # of a block: draws, patches, height / width or inverse


class MaskedPatches(NamedTuple):
    """The masks of this rank's global crops, all images' first crop, then all their second.

    Attributes:
        mask: bool (G·B, N).
        index: places of masked patches among the G·B·N, int64 (n,).
        weight: 1 / the number of masked patches in the crop of each, float32 (n,).
    """

    mask: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # not that of a tuple
    weight: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> 'MaskedPatches':
        """Return a mask (G·B, N) with its indices and weights."""
        index = np.flatnonzero(mask)
        counts = mask.sum(1)
        weight = 1 / counts[index // mask.shape[1]]
        return cls(mask, index, weight.astype(np.float32))


def block_mask(grid: tuple[int, int], count: int, generator: np.random.Generator,
               exact: bool = False) -> np.ndarray:
    """Mask about ``count`` patches of a grid in rectangles.

    Until there are enough: up to 10 times a rectangle of an area from 4 patches to those that are
    left (at most half of the grid), of an aspect ratio from 0.3 to 1 / 0.3 and smaller than the
    grid, at any place; it is taken if it masks from one to all of the patches left. Where none of
    10 is, the mask is finished: it may lack a patch or two.

    Args:
        grid: (rows, columns) h x w.
        count: patches to mask, at least 0.
        generator: of the random numbers.
        exact: fill up with single patches to the very count (DINOv3).

    Returns:
        bool (h, w).
    """
    height, width = grid
    mask = np.zeros(grid, bool)
    masked, low, high = 0, math.log(_ASPECT), math.log(1 / _ASPECT)
    largest = height * width / 2
    while masked < count:
        left = min(count - masked, largest)
        numbers = generator.random((_TRIES, 4))
        for area, ratio, top, side in numbers.tolist():
            area = _SMALLEST + area * (left - _SMALLEST)
            aspect = math.exp(low + ratio * (high - low))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < 1 or w < 1 or h >= height or w >= width:
                continue
            y, x = int(top * (height - h + 1)), int(side * (width - w + 1))
            block = mask[y:y + h, x:x + w]
            new = h * w - int(block.sum())
            if 0 < new <= left:
                block[:] = True
                masked += new
                break
        else:
            break
    if exact and masked < count:
        free = np.flatnonzero(~mask)
        mask.flat[generator.permutation(free)[:count - masked]] = True
    return mask


def draw_masks(grid: tuple[int, int], crops: int, rows: int, rank: int, world: int,
               key: tuple[int, ...], share: float = 0.5, ratio: tuple[float, float] = (0.1, 0.5),
               exact: bool = False) -> MaskedPatches:
    """Draw the masks of this rank's part of a global batch.

    Of all G·B·W crops the share ``share`` is masked. The range of ratios is cut into as many
    equal parts as there are masked crops; each crop masks a share of its patches from its own
    part (DINOv2), or its upper end (DINOv3, ``exact``).

    Args:
        grid: (rows, columns) of the patches.
        crops: global crops G of a tile.
        rows: tiles B of this rank.
        rank: of this process.
        world: number W of processes.
        key: whole numbers, at least 0, that name the draw, such as seed and step.
        share: of the crops that are masked, from 0 to 1.
        ratio: the smallest and the largest share of patches to mask.
        exact: see :func:`block_mask`.
    """
    total, patches = crops * rows * world, grid[0] * grid[1]
    shared = np.random.default_rng(key)
    order = shared.permutation(total)  # of the crops; the first ones are masked
    chosen = math.floor(total * share + 1e-9)
    ends = np.linspace(*ratio, chosen + 1)
    part = shared.random(chosen)
    shares = ends[1:] if exact else ends[:-1] + part * np.diff(ends)
    counts = np.zeros(total, np.int64)
    counts[order[:chosen]] = (shares * patches + 1e-9).astype(np.int64)
    mask = np.zeros((crops, rows, patches), bool)
    for crop in range(crops):
        for row in range(rows):
            number = crop * rows * world + rank * rows + row
            if counts[number]:
                own = np.random.default_rng((*key, number))
                mask[crop, row] = block_mask(grid, int(counts[number]), own, exact).ravel()
    return MaskedPatches.of(mask.reshape(crops * rows, patches))
