"""Tissue masks of many slides: made once, side by side, kept as small files that can be viewed."""

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from ...files import cache_folder, unforced_file
from ...progress import progress
from ..parallel import default_workers
from .slide import Slide, SlideError
from .tissue import Tissue, TissueMap, whole


def mask_file(slide: Slide, tissue: Tissue, folder: str | Path) -> Path:
    """Return where a slide's mask lies: its name tells the slide as it is now, and the settings."""
    found = os.stat(slide.path)
    told = f'{os.path.realpath(slide.path)}|{found.st_size}|{found.st_mtime_ns}|{slide.mpp!r}'
    stem = re.sub(r'[^\w.-]', '_', Path(slide.path).stem)[:80]
    digest = hashlib.sha256(os.fsencode(told)).hexdigest()[:10]
    return Path(folder, f'{stem}.{digest}.{tissue.name}.png')


def tissue_masks(slides: Sequence[Slide], tissue: Tissue | None, folder: str | Path | None = None,
                 first: int = 0) -> list[TissueMap | SlideError]:
    """Return the masks of slides, or what is wrong with a slide.

    Masks are made in threads under a progress bar. A folder that cannot be written is no error:
    the masks are made each time then.

    Args:
        slides: the slides.
        tissue: what counts as tissue; None for all of every slide.
        folder: where masks are kept; ``tissue`` of :func:`.files.cache_folder` by default.
        first: the slide to begin with: processes that begin at different ones share the work.
    """
    if tissue is None:
        return [whole(slide, 8.) for slide in slides]
    kept = Path(folder) if folder is not None else cache_folder('tissue')
    order = [(first + i) % len(slides) for i in range(len(slides))]
    found: dict[int, TissueMap | SlideError] = {}
    with ThreadPoolExecutor(default_workers(), 'tissue') as pool:
        made = pool.map(lambda i: _mask(slides[i], tissue, kept), order)
        for i, result in zip(progress(order, 'tissue masks'), made):
            found[i] = result
    return [found[i] for i in range(len(slides))]


def _mask(slide: Slide, tissue: Tissue, folder: Path) -> TissueMap | SlideError:
    path = mask_file(slide, tissue, folder)
    known = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE) \
        if path.is_file() and path.stat().st_size else None
    if known is None:
        try:
            mask = tissue.mask(slide)
        except SlideError as error:
            return error
        known = mask.astype(np.uint8) * 255
        png = cv2.imencode('.png', known, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()
        with contextlib.suppress(OSError), unforced_file(path) as part:
            part.write_bytes(png)
    area = TissueMap(known > 127)
    return area if area.area else SlideError('there is no tissue on it', where=slide.path,
                                             expected='another slide, or tissue=False')
