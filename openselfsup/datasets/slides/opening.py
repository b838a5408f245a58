"""Find slides, and open each by the reader that suits it."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, located
from ..listing import list_files
from .dicom import one_of_each_series
from .slide import OtherReader, Slide, SlideError
from .tiff import TiffSlide
from .vendor import OpenSlideSlide

SUFFIXES = ('.svs', '.tif', '.tiff', '.btf', '.ndpi', '.mrxs', '.scn', '.svslide', '.vms', '.vmu',
            '.bif', '.dcm')
MAX_OVERVIEW = 2 ** 28  # pixels of the smallest level: of more, a mask would take minutes


def find_slides(root: str | Sequence[str]) -> list[str]:
    """Return the slides of folders (searched in depth), files and globs, in their order.

    Of the files of one DICOM series it is the first.

    Raises:
        UserError: a folder or glob has none, a file is not there, or it is OME-Zarr.
    """
    roots = [str(root)] if isinstance(root, (str, Path)) else [str(each) for each in root]
    found = {each: _slides_of(each) for each in roots}
    empty = [each for each in roots if not found[each]]
    for each in empty:
        if os.path.isdir(each) and (inside := sorted(filter(_is_zarr, os.listdir(each)))):
            raise _zarr(os.path.join(each, inside[0]))
    if empty or not roots:
        raise UserError('there is not one slide', where=', '.join(map(located, empty)) or 'root',
                        expected='files ending in ' + ', '.join(SUFFIXES))
    return one_of_each_series(list(dict.fromkeys(path for each in roots for path in found[each])))


def _slides_of(root: str) -> list[str]:
    if os.path.isdir(root):
        if _is_zarr(root):
            raise _zarr(root)
        return [os.path.join(root, path) for path in list_files(root, SUFFIXES).paths]
    if os.path.exists(root):
        return [root]
    if glob.has_magic(root):
        return sorted(glob.glob(root, recursive=True))
    raise UserError('no such slide, folder or pattern', where=located(root))


def _is_zarr(folder: str) -> bool:
    return folder.rstrip(os.sep).lower().endswith('.zarr')


def _zarr(folder: str) -> UserError:
    return UserError('OME-Zarr is not read', where=located(folder),
                     expected='a pyramid of OME-TIFF, as raw2ometiff --rgb writes it from '
                     'OME-Zarr')


def open_slide(path: str, mpp: float | None = None, otherwise: float | None = None) -> Slide:
    """Open a slide: tiled TIFF by our reader of native tiles, all others by OpenSlide.

    Args:
        path: the file.
        mpp: micrometres per pixel, in place of what the file tells.
        otherwise: micrometres per pixel, where the file does not tell.

    Raises:
        SlideError: it is no slide, damaged, without mpp or without a pyramid.
    """
    try:
        slide: Slide = TiffSlide(path)
    except OtherReader:
        slide = OpenSlideSlide(path)
    except OSError as error:
        raise SlideError(error.strerror or str(error), where=path) from None
    if mpp is None:
        mpp = slide.mpp if slide.tells_mpp or otherwise is None else otherwise  # or it complains
    slide.mpp = mpp
    smallest = slide.levels[-1]
    if smallest.width * smallest.height > MAX_OVERVIEW:
        raise SlideError(f'it has no pyramid: its smallest level is {smallest.width} x '
                         f'{smallest.height} px', where=path, expected='levels down to a few '
                         'thousand pixels, for example by vips tiffsave --tile --pyramid')
    return slide
