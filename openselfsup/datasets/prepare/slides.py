"""Whole slides to tiles of a given resolution, without the glass between the tissue."""

import csv
import io
import shutil
from pathlib import Path

from ...errors import UserError
from ...files import write_text
from ...progress import progress
from ..listing import natural
from ..parallel import DISK_THREADS, parallel_map
from ..png import write_png
from ..slides import Slide, SlideError, Tissue, find_slides, open_slide, slide_names
from ..slides.dicom import is_dicom
from ..slides.grid import SlideGrid
from ..slides.masks import tissue_masks
from ..slides.tissue import TissueMap
from .report import Report
from .resuming import go_on_with

COLUMNS = ('file', 'slide', 'x', 'y', 'read_size', 'size', 'mpp', 'tissue')


def prepare_slides(src: Path, dst: Path, report: Report, mpp: float = 0.5, size: int = 224,
                   min_tissue: float = 0.5, source_mpp: float | None = None) -> None:
    """Cut slides into ``dst/tiles/SLIDE/x_y.png`` and list them in ``dst/tiles.csv``.

    Tiles lie side by side from the upper left corner, as those of ``slides embed`` do. A slide
    whose ``dst/slides/SLIDE.csv`` exists is done and not cut again. Masks of the tissue are kept in
    ``dst/tissue``.

    Args:
        src: a slide, or a folder of slides at any depth.
        dst: where to write.
        report: told what was written and what is odd.
        mpp: µm per pixel of the tiles.
        size: their side in pixels.
        min_tissue: share of tissue below which a tile is left out, in [0, 1].
        source_mpp: resolution of slides that do not tell theirs.

    Raises:
        UserError: there is no slide, or tiles of an earlier run with other options.
    """
    slides = sorted(map(Path, find_slides(str(src))), key=natural)
    name_of = dict(zip(slides, slide_names([str(path) for path in slides])))
    tissue = Tissue()
    go_on_with(dst / 'options.json', dict(
        mpp=mpp, size=size, min_tissue=min_tissue, source_mpp=source_mpp, tissue=tissue.name),
        src.parent if src.is_file() else src, slides,
        lambda path: (dst / 'slides' / f'{name_of[path]}.csv').exists()
        or (dst / 'tiles' / name_of[path]).exists())
    alone = _of_own_names(name_of, report)
    todo = [path for path in alone if not (dst / 'slides' / f'{name_of[path]}.csv').exists()]
    opened = parallel_map(lambda path: open_slide(str(path), otherwise=source_mpp), todo,
                          DISK_THREADS)
    good = [slide for slide in opened if isinstance(slide, Slide)]
    wrong: list[UserError] = [error for error in opened if isinstance(error, UserError)]
    for slide, area in zip(good, tissue_masks(good, tissue, dst / 'tissue') if good else []):
        name = name_of[Path(slide.path)]
        try:
            rows = _cut(slide, area, name, dst, report, mpp, size, min_tissue)
        except SlideError as error:
            wrong.append(error)
            shutil.rmtree(dst / 'tiles' / name, ignore_errors=True)  # it may be mended
            continue
        write_text(dst / 'slides' / f'{name}.csv', _csv(rows))
    report.problems += [f'{error}; left out' for error in wrong]
    shared = set(name_of.values()) - {name_of[path] for path in alone}
    rows = [row for path in sorted((dst / 'slides').glob('*.csv')) if path.stem not in shared
            for row in csv.DictReader(io.StringIO(path.read_text(encoding='utf-8')))]
    write_text(dst / 'tiles.csv', _csv(rows))
    write_text(dst / 'meta' / 'all.txt', ''.join(f'{row["file"]}\n' for row in rows))
    report.facts.update(slides=len({row['slide'] for row in rows}), tiles=len(rows))


def _of_own_names(name_of: dict[Path, str], report: Report) -> list[Path]:
    """Return the slides without those that share a name, which the report is told of."""
    of_name: dict[str, list[Path]] = {}
    for path, name in name_of.items():
        of_name.setdefault(name, []).append(path)
    for path, name in name_of.items():
        if others := [str(other) for other in of_name[name] if other != path]:
            report.problem(path, f"has the name of {', '.join(others)}; all are left out")
    return [path for path, name in name_of.items() if len(of_name[name]) == 1]


def _cut(slide: Slide, tissue: TissueMap | SlideError, name: str, dst: Path, report: Report,
         mpp: float, size: int, least: float) -> list[dict]:
    """Cut one slide; return a row for each tile."""
    if isinstance(tissue, SlideError):
        raise tissue
    grid = SlideGrid(slide, tissue, mpp, size, least)
    if not len(grid):
        raise SlideError(f'no tile of {size} px at mpp={mpp:g} has enough tissue',
                         where=slide.path, expected='a smaller --min-tissue or --size')
    if mpp < 0.95 * slide.mpp:
        report.note(slide.path, f'has {slide.mpp:.3f} µm per pixel: its tiles are enlarged to '
                                f'{mpp}')
    told = name if is_dicom(slide.path) else Path(slide.path).name
    rows = []
    for number in progress(range(len(grid)), told):
        left, top, side, _ = grid.regions[number].box
        x, y = round(left), round(top)
        file = f'tiles/{name}/x{x:06d}_y{y:06d}.png'
        if not (dst / file).exists():
            write_png(dst / file, grid.read(number))
        share = tissue.share(left / slide.width, top / slide.height, side / slide.width,
                             side / slide.height)
        rows.append(dict(file=file, slide=told, x=x, y=y, read_size=round(side), size=size,
                         mpp=mpp, tissue=f'{share:.3f}'))
    return rows


def _csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
