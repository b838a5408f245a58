"""Features of whole slides, in the layout of TRIDENT and CLAM."""

import io
from collections.abc import Sequence
from pathlib import Path

import h5py
from torch import nn

from ..datasets.slides import Slides
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
