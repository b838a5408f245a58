"""Features of whole slides, in the layout of TRIDENT and CLAM."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.slides import Slide, Slides, open_slide
from ..datasets.slides.grid import SlideGrid
from ..errors import UserError
from ..files import write_bytes
from .extract import extract_source, inputs_of, refuse_other_features


def embed_slide(backbone: nn.Module, slides: Slides, number: int, least: float, batch_size: int,
                mean: Sequence[float], std: Sequence[float], amp: str, out: Path) -> int:
    """Write the features of all tiles of a slide, unless they are there.

    Args:
        backbone: maps images to a list of feature maps.
        slides: opened slides, of one magnification.
        number: of the slide.
        least: share of a tile that tissue has to cover.
        batch_size: tiles of one forward pass.
        mean, std: normalisation of the input, for values in [0, 1].
        amp: 'off', 'bf16' or 'fp16'.
        out: the file.

    Returns:
        The number of tiles.

    Raises:
        UserError: the file holds something else, no tile has enough tissue, or one is damaged.
    """
    slide, size, mpp = slides.slides[number], slides.size, slides.mpp
    grid = SlideGrid(slide, slides.maps[number], mpp, size, least)
    if not len(grid):
        raise UserError(f'no tile of {size} px at mpp={mpp:g} has enough tissue',
                        where=slide.path, expected='a smaller --min-share or --size')
    inputs = inputs_of(backbone, grid, size, mean, std, amp)
    refuse_other_features(out, inputs)
    if out.exists():
        return len(grid)
    found = extract_source(backbone, grid, size, batch_size, mean, std, amp, out.parent)
    assert found is not None  # of one process
    memory = io.BytesIO()
    with h5py.File(memory, 'w') as file:
        file.create_dataset('features', data=found['features'].numpy())
        coords = file.create_dataset('coords', data=grid.coords())
        coords.attrs.update(
            patch_size=size, patch_size_level0=round(grid.regions[0].box[2]), overlap=0,
            level0_magnification=round(10 / slide.mpp, 2), target_magnification=round(10 / mpp, 2),
            level0_mpp=slide.mpp, target_mpp=mpp, level0_width=slide.width,
            level0_height=slide.height, name=out.stem)
        file.create_dataset('inputs', data=inputs, dtype=h5py.string_dtype())
    write_bytes(out, memory.getvalue())
    return len(grid)


@dataclasses.dataclass(frozen=True)
class SlideFeatures:
    """Features of the tiles of a slide, as read from a file.

    Attributes:
        path: the file.
        features: vectors of length 1, float32 (N, D).
        corners: upper left corners of the tiles in pixels of the base level, int64 (N, 2): x, y.
        side: of a tile, in the same pixels.
        size: (width, height) of the base level.
    """

    path: Path
    features: Tensor
    corners: np.ndarray
    side: int
    size: tuple[int, int]


def open_slide_of(features: Path, path: str) -> Slide:
    """Open the slide of features at their micrometres per pixel, without reading them.

    TRIDENT tells the magnification alone, a rounded one: the slide's own word goes before it.

    Args:
        features: their file.
        path: the slide.

    Raises:
        UserError: see :func:`read_slide_features`, or the slide cannot be used.
    """
    try:
        with h5py.File(features) as file:
            told = file['coords'].attrs
            mpp = float(told['level0_mpp']) if 'level0_mpp' in told else None
            magnification = float(told['level0_magnification']) if mpp is None else 0.
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _no_features(features, error) from None
    return open_slide(path, mpp, 10 / magnification if magnification > 0 else None)


def read_slide_features(path: Path) -> SlideFeatures:
    """Read what :func:`embed_slide` or TRIDENT wrote.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    try:
        with h5py.File(path) as file:
            features, coords = torch.from_numpy(file['features'][:]).float(), file['coords']
            corners, told = coords[:], coords.attrs
            side, *size = (int(told[name]) for name in (
                'patch_size_level0', 'level0_width', 'level0_height'))
        if features.ndim != 2 or corners.shape != (len(features), 2) or not len(features):
            raise ValueError(f'features {tuple(features.shape)}, coords {corners.shape}')
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _no_features(path, error) from None
    return SlideFeatures(path, F.normalize(features), corners, side, (size[0], size[1]))


def _no_features(path: Path, error: Exception) -> UserError:
    return UserError(f'this holds no features of a slide ({error})', where=str(path),
                     expected='a file that openselfsup slides embed or TRIDENT wrote')
