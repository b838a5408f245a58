"""What a backbone tells apart on slides: colours of its tiles, and where a region has its like."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.png import write_png
from ..datasets.slides import Region, Slide, SlideError
from ..errors import UserError, nearest, shown
from ..evaluation.slide_features import SlideFeatures, read_slide_features
from ..files import write_text
from ..progress import progress
from . import page
from .components import colours_of
from .likes import COLOURS, OPACITY, PERCENTILES
from .slide_page import SIDE, TILE, outline, small, tile_sheet, write_jpeg

NEAREST = 8  # tiles that are shown of each slide
NAMES = 'map_[0-9]*_*.*'


class Place(NamedTuple):
    """A rectangle of a slide: its number, and (left, top, width, height) in base pixels."""

    number: int
    box: tuple[float, float, float, float]


def write_slide_maps(files: Sequence[Path], slides: Sequence[Slide], folder: str | Path,
                     like: Place | None = None) -> Path:
    """Write ``index.html`` with colour maps of slides, and its pictures beside it.

    Components and similarities are of all tiles of all slides together, so that colours mean the
    same on each. One slide's features are held at a time. Where a slide is damaged, its features
    are drawn on white.

    Args:
        files: features of the slides.
        slides: the slides.
        folder: where to; made if need be. Pictures of an earlier page are removed.
        like: also draw how similar tiles are to those of this region.

    Returns:
        The page.

    Raises:
        UserError: features are of other slides or of several backbones; no tile in the region.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(NAMES):
        old.unlink()
    mean, axes, shares, counts = fit_components(files, slides)
    asked = None if like is None else _asked(read_slide_features(files[like.number]), like, mean)
    thumbnails, values, bright, likes = [], [], [], []
    damaged: list[list[str]] = [[] for _ in files]
    for number, (file, slide) in enumerate(zip(progress(files, 'slides'), slides)):
        read = read_slide_features(file)
        thumbnails.append(_thumbnail(slide, damaged[number]))
        values.append(((read.features - mean) @ axes).numpy())
        bright.append(_brightness(thumbnails[-1], read, slide))
        if asked is not None:
            likes.append((F.normalize(read.features - mean) @ asked).numpy())
    stacked = np.concatenate(values)
    rises = stacked.T @ (np.concatenate(bright) - np.concatenate(bright).mean())
    colours = np.split(colours_of(stacked * np.where(rises < 0, -1, 1)), np.cumsum(counts)[:-1])
    span = np.percentile(np.concatenate(likes), PERCENTILES) if likes else None
    sections = []
    for number, (file, slide, image) in enumerate(zip(files, slides, thumbnails)):
        read = read_slide_features(file)
        parts = _component_part(folder, number, read, slide, image, colours[number])
        if like is not None and span is not None:
            parts += _like_part(folder, number, read, slide, image, likes[number], span, like,
                                damaged[number])
        told = [page.paragraph(shown(each)) for each in dict.fromkeys(damaged[number])]
        sections.append(page.section(shown(file.stem), *told, parts))
    out = folder / 'index.html'
    write_text(out, page.page('Maps of slides', [
        page.heading('Maps of slides', 'One colour: tiles whose features are alike, on all slides. '
                     'Red, green and blue are the first three principal components of all tiles.'),
        page.facts([('Slides', f'{len(files):,}'), ('Tiles', f'{sum(counts):,}'),
                    ('Variance shown', f'{100 * float(shares.sum()):.0f} %')]),
        _question(folder, files, slides, like), *sections]), 'backslashreplace')
    return out


def fit_components(files: Sequence[Path], slides: Sequence[Slide]
                   ) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Return mean (D,), three components (D, 3) and their shares of variance (3,) of all tiles.

    Args:
        files: features of the slides.
        slides: the slides.

    Returns:
        These, float32, and the number of tiles of each slide.

    Raises:
        UserError: a file is of another slide, or of another backbone than the first.
    """
    counts: list[int] = []
    total = squares = torch.zeros(0)
    for file, slide in zip(files, slides):
        read = read_slide_features(file)
        if read.size != (slide.width, slide.height):
            raise UserError(f'these features are of a slide of {read.size[0]} x {read.size[1]} px, '
                            f'this one has {slide.width} x {slide.height}', where=slide.path,
                            expected=f'the slide that {file} was made of')
        features = read.features.double()
        if not counts:
            total, squares = (features.new_zeros(features.shape[1], *more)
                              for more in ((), (features.shape[1],)))
        if features.shape[1] != len(total):
            raise UserError(f'its features have {features.shape[1]} values, those of {files[0]} '
                            f'{len(total)}', where=str(file), expected='one backbone for all')
        counts.append(len(features))
        total, squares = total + features.sum(0), squares + features.T @ features
    mean = total / sum(counts)
    variance, axes = torch.linalg.eigh(squares / sum(counts) - mean[:, None] * mean)
    variance = variance.flip(0).clamp(min=0)
    return (mean.float(), axes.flip(1)[:, :3].float(), variance[:3] / variance.sum().clamp(1e-30),
            counts)


def place_of(text: str, paths: Sequence[str], names: Sequence[str]) -> Place:
    """Read a region, ``SLIDE#xywh=LEFT,TOP,WIDTH,HEIGHT`` in pixels of the base level.

    Args:
        text: what a user wrote; SLIDE is a path or a name.
        paths, names: of the slides.

    Raises:
        UserError: it is no region, or of another slide.
    """
    number = r'(\d+(?:\.\d*)?)'
    found = re.fullmatch(rf'(.+)#xywh={",".join([number] * 4)}', text)
    box = tuple(map(float, found.groups()[1:])) if found else ()
    if not found or not min(box[2:]):
        raise UserError(f"'{text}' is no region", where='--like',
                        expected='SLIDE#xywh=LEFT,TOP,WIDTH,HEIGHT, in pixels of the base level')
    for i, (path, name) in enumerate(zip(paths, names)):
        if found[1] in (path, name, Path(path).name):
            return Place(i, (box[0], box[1], box[2], box[3]))
    raise UserError(f"no slide with features is called '{found[1]}'", where='--like',
                    nearest=nearest(found[1], names))


def tiles_in(read: SlideFeatures, box: Sequence[float]) -> np.ndarray:
    """Return which tiles have their middle in a box; else the one that holds the box's, bool (N,).
    """
    left, top, width, height = box
    middle = read.corners + read.side / 2 - (left, top)
    inside = np.all((middle >= 0) & (middle < (width, height)), axis=1)
    if inside.any():
        return inside
    off = np.array([left + width / 2, top + height / 2]) - read.corners
    return np.all((off >= 0) & (off < read.side), axis=1)


def _asked(read: SlideFeatures, like: Place, mean: Tensor) -> Tensor:
    inside = tiles_in(read, like.box)
    if not inside.any():
        raise UserError('this region has no tile: it is glass, or beyond the slide',
                        where='--like', expected=f'a place among the tiles of {read.path}')
    return F.normalize(read.features[torch.from_numpy(inside)].mean(0) - mean, dim=0)


def _component_part(folder: Path, number: int, read: SlideFeatures, slide: Slide,
                    image: np.ndarray, colours: np.ndarray) -> str:
    names = f'map_{number + 1:03}_tissue.jpg', f'map_{number + 1:03}_components.png'
    write_jpeg(folder / names[0], image)
    drawn = 255 - (255 - _grey(image)) // 3  # what has no tile stays pale
    for (across, down), colour in zip(_cells(image, read, slide), colours):
        drawn[down, across] = colour
    write_png(folder / names[1], drawn)
    return page.beside(page.picture(folder, names[0], 'Tissue.'), page.picture(
        folder, names[1], f'{len(colours):,} tiles, coloured by their features.'))


def _like_part(folder: Path, number: int, read: SlideFeatures, slide: Slide, image: np.ndarray,
               likes: np.ndarray, span: np.ndarray, like: Place, damaged: list[str]) -> str:
    names = f'map_{number + 1:03}_like.png', f'map_{number + 1:03}_nearest.jpg'
    share = ((likes - span[0]) / max(span[1] - span[0], 1e-12)).clip(0, 1)
    grey, drawn = _grey(image), 255 - (255 - _grey(image)) // 3
    for (across, down), colour in zip(_cells(image, read, slide), COLOURS(share)[:, :3] * 255):
        drawn[down, across] = OPACITY * colour + (1 - OPACITY) * grey[down, across]
    others = np.ones(len(likes), bool)
    caption = 'Yellow: like the region that was asked for.'
    if like.number == number:
        others = ~tiles_in(read, like.box)
        outline(drawn, like.box, slide)
        caption = 'Yellow: like the region in the orange frame.'
    write_png(folder / names[0], drawn)
    order = np.flatnonzero(others)[np.argsort(-likes[others], kind='stable')][:NEAREST]
    tiles = []
    for i in order:
        try:
            tiles.append(_tile(slide, (*read.corners[i], read.side, read.side)))
        except SlideError as error:
            damaged.append(str(error))
    if not tiles:
        return page.beside(page.picture(folder, names[0], caption))
    write_jpeg(folder / names[1], tile_sheet(tiles))
    return page.beside(page.picture(folder, names[0], caption), page.picture(
        folder, names[1], f'The {len(order)} most similar tiles'
        f'{" outside of it" if like.number == number else ""}: cosines of '
        f'{likes[order[0]]:.2f} to {likes[order[-1]]:.2f}.'))


def _question(folder: Path, files: Sequence[Path], slides: Sequence[Slide],
              like: Place | None) -> str:
    """Return the section that shows the region that was asked for."""
    if like is None:
        return ''
    name, damaged = 'map_000_asked.jpg', ''
    try:
        write_jpeg(folder / name, _tile(slides[like.number], like.box, 3 * TILE))
    except SlideError as error:
        damaged = page.paragraph(shown(str(error)))
    place = ', '.join(f'{value:g}' for value in like.box)
    return page.section('Asked for', damaged, page.picture(
        folder, name, f'A region of {files[like.number].stem} at {place} (left, top, width, height '
        'in pixels of the base level). Similarity is the cosine of a tile and the mean of the '
        "region's tiles, after the mean of all tiles was taken away."))


def _thumbnail(slide: Slide, damaged: list[str]) -> np.ndarray:
    """Return a small slide; white if it is damaged, which the list is told of."""
    try:
        return small(slide)
    except SlideError as error:
        damaged.append(str(error))
        scale = SIDE / max(slide.width, slide.height)
        high, wide = (max(round(n * scale), 1) for n in (slide.height, slide.width))
        return np.full((high, wide, 3), 255, np.uint8)


def _tile(slide: Slide, box: Sequence[float], side: int = TILE) -> np.ndarray:
    """Return a box of the base level, its longer side ``side`` pixels, uint8 (H, W, 3)."""
    left, top, width, height = box
    level = slide.level_for(max(width, height) * slide.mpp / side)
    first = [min(max(round(v / level.downsample), 0), room - 1)
             for v, room in ((left, level.width), (top, level.height))]
    last = [min(max(round(v / level.downsample), start + 1), room) for v, start, room in (
        (left + width, first[0], level.width), (top + height, first[1], level.height))]
    pixels = slide.pixels(Region(level, first[0], first[1], last[0] - first[0],
                                 last[1] - first[1]))
    scale = side / max(pixels.shape[:2])
    size = tuple(max(round(n * scale), 1) for n in pixels.shape[1::-1])
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _cells(image: np.ndarray, read: SlideFeatures, slide: Slide) -> list[tuple[slice, slice]]:
    """Return which columns and rows of a small slide each tile covers."""
    scale = np.array([image.shape[1] / slide.width, image.shape[0] / slide.height])
    first = np.floor(read.corners * scale + 0.5).astype(int)
    last = np.maximum(np.floor((read.corners + read.side) * scale + 0.5).astype(int), first + 1)
    return [(slice(x0, x1), slice(y0, y1)) for (x0, y0), (x1, y1) in
            zip(first.tolist(), last.tolist())]


def _brightness(image: np.ndarray, read: SlideFeatures, slide: Slide) -> np.ndarray:
    return np.array([image[down, across].mean() for across, down in _cells(image, read, slide)])


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
