"""The page of a cohort: each slide, where its tissue is, and tiles that a run would read."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from ..datasets.slides import Region, Slide, SlideError, Slides
from ..datasets.slides.dicom import is_dicom
from ..errors import shown
from ..files import write_bytes, write_text
from ..progress import progress
from . import page
from .canvas import view_color

SIDE = 640  # of a thumbnail in pixels, at most
TILE = 112  # of a tile
DRAWN = 4096  # tiles of the first epoch that are looked through for those of each slide
NAMES = 'slide_[0-9]*_*.jpg'


def write_slide_page(source: Slides, folder: str | Path, slides: int = 100, tiles: int = 8) -> Path:
    """Write ``index.html`` with the slides of a source, and its pictures beside it.

    Args:
        source: the slides.
        folder: where to; made if need be. Pictures of an earlier page are removed.
        slides: how many slides are drawn at most; all are listed.
        tiles: how many tiles of each.

    Returns:
        The page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(NAMES):
        old.unlink()
    found = first_tiles(source, tiles)
    sections = [_section(source, number, found[number], folder)
                for number in progress(range(min(slides, len(source.slides))), 'slides')]
    out = folder / 'index.html'
    write_text(out, page.page('Slides', [
        page.heading('Slides', 'Blue: the edge of the tissue. Orange: tiles of the first epoch, '
                     'which are shown beside.'), _facts(source),
        page.section('Left out', *(page.paragraph(str(error)) for error in source.left_out)),
        *sections, _table(source)]), 'backslashreplace')
    return out


def first_tiles(source: Slides, count: int) -> list[list[tuple[int, Region]]]:
    """Return the first tiles of each slide in the first epoch: their index and place."""
    found: list[list[tuple[int, Region]]] = [[] for _ in source.slides]
    numbers = {slide.path: number for number, slide in enumerate(source.slides)}
    for index in range(min(len(source), DRAWN)):
        slide, region = source.place(index)
        if len(mine := found[numbers[slide.path]]) < count:
            mine.append((index, region))
    return found


def thumbnail(source: Slides, number: int, regions: Sequence[Region]) -> np.ndarray:
    """Return a slide with the outline of its tissue and of tiles, uint8 (H, W, 3), RGB."""
    slide, mask = source.slides[number], source.maps[number].mask()
    image = small(slide)
    high, wide = image.shape[:2]
    inside = cv2.resize(mask.astype(np.uint8), (wide, high), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(image, contours, -1, (255, 255, 255), 4)
    cv2.drawContours(image, contours, -1, _rgb(view_color(0)), 2)
    for region in regions:
        outline(image, region.box, slide)
    return image


def small(slide: Slide) -> np.ndarray:
    """Return a whole slide with at most ``SIDE`` pixels on a side, uint8 (H, W, 3), RGB."""
    image = slide.overview(max(slide.width, slide.height) * slide.mpp / SIDE)
    return np.ascontiguousarray(image[:SIDE, :SIDE])


def outline(image: np.ndarray, box: Sequence[float], slide: Slide) -> None:
    """Draw the edge of a box (left, top, width, height) of the base level into a small slide."""
    left, top, width, height = box
    across, down = image.shape[1] / slide.width, image.shape[0] / slide.height
    first = round(left * across), round(top * down)
    last = round((left + width) * across), round((top + height) * down)
    cv2.rectangle(image, first, last, (255, 255, 255), 4)
    cv2.rectangle(image, first, last, _rgb(view_color(1)), 2)


def _section(source: Slides, number: int, found: Sequence[tuple[int, Region]], folder: Path) -> str:
    slide = source.slides[number]
    names = [f'slide_{number + 1:03}_{kind}.jpg' for kind in ('tissue', 'tiles')]
    wrong: list[str] = []  # what is damaged keeps nobody from the rest
    try:
        write_jpeg(folder / names[0], thumbnail(source, number, [region for _, region in found]))
    except SlideError as error:
        wrong.append(str(error))
    tiles = []
    for index, _ in found:
        try:
            tiles.append(source.read(index))
        except SlideError as error:
            wrong.append(str(error))
    if tiles:
        write_jpeg(folder / names[1], tile_sheet(tiles))
    levels = ', '.join(f'{level.downsample:g}' for level in slide.levels if level.reduce == 1)
    told = (f'{slide.width:,} x {slide.height:,} px of {slide.mpp:g} µm, levels at 1/{levels}; '
            f'{source.areas[number]:.1f} mm² of tissue; {source.weights[number]:.1%} of tiles.')
    seen = f'{len(tiles)} tiles' if found else f'No tile among the first {DRAWN:,}.'
    name = Path(slide.path).name
    if is_dicom(name):
        name = source.names[number]
    damaged = [page.paragraph(shown(each)) for each in dict.fromkeys(wrong)]
    return page.section(shown(name), page.paragraph(told), *damaged, page.beside(
        page.picture(folder, names[0], 'Tissue and tiles.'),
        page.picture(folder, names[1], f'{seen}.') or page.paragraph(seen)))


def _facts(source: Slides) -> str:
    return page.facts([
        ('Slides', f'{len(source.slides):,}'), ('Left out', f'{len(source.left_out):,}'),
        ('Tissue', f'{source.areas.sum():,.1f} mm²'),
        ('Tiles an epoch', f'{len(source):,}'), ('Tile', f'{source.size} px')])


def _table(source: Slides) -> str:
    rows = [[escape(shown(slide.path)), f'{slide.mpp:g}', f'{source.areas[i]:.1f}',
             f'{source.weights[i]:.2%}'] for i, slide in enumerate(source.slides)]
    return page.section('All slides', page.table(['Slide', 'µm per pixel', 'Tissue in mm²',
                                                  'Share of tiles'], rows, numbers=3))


def tile_sheet(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Return tiles side by side, four in a row, on white."""
    small = [cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_AREA) for tile in tiles]
    step, columns = TILE + 4, min(len(small), 4)
    sheet = np.full((-(-len(small) // columns) * step, columns * step, 3), 255, np.uint8)
    for i, tile in enumerate(small):
        top, left = i // columns * step, i % columns * step
        sheet[top:top + TILE, left:left + TILE] = tile
    return sheet


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an image, uint8 (H, W, 3), RGB."""
    write_bytes(path, cv2.imencode('.jpg', image[..., ::-1])[1].tobytes())
