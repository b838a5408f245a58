"""Whole slides to tiles of a given resolution, without the glass between the tissue."""

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...errors import UserError
from ...files import write_text
from ...progress import progress
from ..listing import natural
from ..png import write_png
from ..slides.dicom import is_dicom, slide_names
from ..slides.opening import find_slides
from ..slides.slide import SlideError
from ..slides.vendor import refuse_huge_tiles
from .bcss import starts
from .report import Report
from .resuming import go_on_with

COLUMNS = ('file', 'slide', 'x', 'y', 'read_size', 'size', 'mpp', 'tissue')
_OVERVIEW_MPP = 8.0


def tissue_mask(image: np.ndarray) -> np.ndarray:
    """Tell tissue from glass and pen.

    Stained tissue absorbs green more than red and blue do, by eosin and haematoxylin both;
    glass absorbs nothing, black pen and dirt absorb all alike, green and blue pens absorb red
    most.

    Args:
        image: uint8 [H, W, 3] RGB.

    Returns:
        Boolean array [H, W].
    """
    smooth = cv2.GaussianBlur(image, (0, 0), 1.5)
    density = -np.log10((smooth.astype(np.float32) + 1) / 256)
    red, green, blue = density[..., 0], density[..., 1], density[..., 2]
    stained = (green > 0.06) & (green - np.minimum(red, blue) > 0.03)
    # Pens: green ink lets green through; blue ink absorbs red far more than blue; red ink
    # absorbs blue as strongly as green.
    pen = (red > green * 1.15) | ((red > 0.25) & (red > 2.6 * blue) & (red > 0.85 * green)) | (
        (green > 0.25) & (blue > 0.9 * green) & (red < 0.25 * green))
    return stained & ~pen


def tissue_share(image: np.ndarray) -> float:
    """Return the share of tissue in an image, in [0, 1]."""
    return float(tissue_mask(image).mean())


def prepare_slides(src: Path, dst: Path, report: Report, mpp: float = 0.5, size: int = 224,
                   min_tissue: float = 0.5, source_mpp: float | None = None) -> None:
    """Cut slides into ``dst/tiles/SLIDE/x_y.png`` and list them in ``dst/tiles.csv``.

    A slide whose ``dst/slides/SLIDE.csv`` exists is done and not cut again.

    Args:
        src: a slide, or a folder of slides at any depth.
        dst: where to write.
        report: told what was written and what is odd.
        mpp: µm per pixel of the tiles.
        size: their side in pixels.
        min_tissue: share of tissue below which a tile is left out, in [0, 1].
        source_mpp: resolution of slides that do not tell theirs.

    Raises:
        UserError: OpenSlide is not installed, there is no slide, or tiles of an earlier run with
            other options.
    """
    try:
        import openslide
    except (ImportError, OSError):
        raise UserError('reading slides needs OpenSlide',
                        expected='pip install openslide-python openslide-bin') from None
    slides = sorted(map(Path, find_slides(str(src))), key=natural)
    name_of = dict(zip(slides, slide_names([str(path) for path in slides])))
    go_on_with(dst / 'options.json', dict(
        mpp=mpp, size=size, min_tissue=min_tissue, source_mpp=source_mpp),
        src.parent if src.is_file() else src, slides,
        lambda path: (dst / 'slides' / f'{name_of[path]}.csv').exists()
        or (dst / 'tiles' / name_of[path]).exists())
    of_name: dict[str, list[Path]] = {}
    for path, name in name_of.items():
        of_name.setdefault(name, []).append(path)
    shared = {name for name, paths in of_name.items() if len(paths) > 1}
    for path, name in name_of.items():
        if others := [str(other) for other in of_name[name] if other != path]:
            report.problem(path, f"has the name of {', '.join(others)}; all are left out")
            continue
        listed = dst / 'slides' / f'{name}.csv'
        if listed.exists():
            continue
        try:
            with openslide.OpenSlide(str(path)) as slide:
                refuse_huge_tiles(slide.level_dimensions, slide.properties, str(path))
                rows = _cut(slide, path, name, dst, report, mpp, size, min_tissue, source_mpp)
        except openslide.OpenSlideError as error:
            report.problem(path, f'cannot be read as a slide ({error}); left out')
            shutil.rmtree(dst / 'tiles' / name, ignore_errors=True)  # it may be mended
            continue
        except SlideError as error:
            report.problems.append(f'{error}; left out')
            continue
        if rows is not None:
            write_text(listed, _csv(rows))
    rows = [row for path in sorted((dst / 'slides').glob('*.csv')) if path.stem not in shared
            for row in csv.DictReader(io.StringIO(path.read_text(encoding='utf-8')))]
    write_text(dst / 'tiles.csv', _csv(rows))
    write_text(dst / 'meta' / 'all.txt', ''.join(f'{row["file"]}\n' for row in rows))
    report.facts.update(slides=len({row['slide'] for row in rows}), tiles=len(rows))


def _cut(slide: Any, path: Path, called: str, dst: Path, report: Report, mpp: float, size: int,
         min_tissue: float, source_mpp: float | None) -> list[dict] | None:
    """Cut one slide; return a row for each tile, None if its resolution is unknown."""
    own = slide.properties.get('openslide.mpp-x')
    own = float(own) if own and float(own) < 20 else source_mpp  # 72 dpi is written unasked
    if own is None:
        report.problem(path, 'does not tell its µm per pixel; give --source-mpp; left out')
        return None
    if mpp < 0.95 * own:
        report.note(path, f'has {own:.3f} µm per pixel: its tiles are enlarged to {mpp}')
    side = round(size * mpp / own)  # of a tile in pixels of level 0
    width, height = slide.dimensions
    level = slide.get_best_level_for_downsample(mpp / own * 1.01)
    read = max(round(side / slide.level_downsamples[level]), 1)
    rows, places = [], list(_places(slide, own, side, width, height))
    told = called if is_dicom(path.name) else path.name
    for x, y in progress(places, told):
        pixels = np.asarray(slide.read_region((x, y), level, (read, read)))
        image = _over_white(pixels)
        if read != size:
            how = cv2.INTER_AREA if read > size else cv2.INTER_CUBIC
            image = cv2.resize(image, (size, size), interpolation=how)
        share = tissue_share(image)
        if share < min_tissue:
            continue
        name = f'tiles/{called}/x{x:06d}_y{y:06d}.png'
        if not (dst / name).exists():
            write_png(dst / name, image)
        rows.append(dict(file=name, slide=told, x=x, y=y, read_size=side, size=size, mpp=mpp,
                         tissue=f'{share:.3f}'))
    return rows


def _places(slide: Any, own: float, side: int, width: int, height: int) -> Iterator[tuple]:
    """Yield corners of a grid of tiles that an overview does not show to be mere glass."""
    factor = max(_OVERVIEW_MPP / own, max(width, height) / 4000, 1)
    overview = np.asarray(slide.get_thumbnail((round(width / factor), round(height / factor))))
    mask = tissue_mask(overview[..., :3])
    sy, sx = mask.shape[0] / height, mask.shape[1] / width
    for y in starts(height, side):
        for x in starts(width, side):
            part = mask[int(y * sy):int((y + side) * sy) + 1, int(x * sx):int((x + side) * sx) + 1]
            if part.any():
                yield x, y


def _over_white(rgba: np.ndarray) -> np.ndarray:
    """Lay the transparent places outside of the scan over white."""
    image = rgba[..., :3].copy()
    image[rgba[..., 3] == 0] = 255
    return image


def _csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
