"""BCSS: breast cancer regions with semantic masks, cut into tiles, split by site."""

import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from ...errors import UserError
from ...files import write_json
from ...progress import progress
from ..decode import read_tile
from ..listing import files_in, folders_below
from ..png import write_png
from .glands import IMAGES, by_stem, pair_up
from .masks import read_mask
from .report import Report
from .resuming import go_on_with

MPP = 0.25
IGNORE = 255
CODES = ('outside_roi', 'tumor', 'stroma', 'lymphocytic_infiltrate', 'necrosis_or_debris',
         'glandular_secretions', 'blood', 'exclude', 'metaplasia_NOS', 'fat', 'plasma_cells',
         'other_immune_infiltrate', 'mucoid_material', 'normal_acinus_or_duct', 'lymphatics',
         'undetermined', 'nerve', 'skin_adnexa', 'blood_vessel', 'angioinvasion', 'dcis', 'other')
MERGED = ('tumor', 'stroma', 'inflammatory', 'necrosis', 'other')
_MERGE = {1: 0, 19: 0, 20: 0, 2: 1, 3: 2, 10: 2, 11: 2, 4: 3, 0: IGNORE, 7: IGNORE}
# Amgad et al. 2019 hold out whole hospitals: the site is the second field of a TCGA barcode.
TEST_SITES = frozenset(('OL', 'LL', 'E2', 'EW', 'GM', 'S3'))
VAL_SITES = frozenset(('BH', 'C8', 'A8', 'A1', 'E9'))


def code_table(merge: bool) -> tuple[np.ndarray, list[str]]:
    """Return the map from the 22 codes to our classes (255 is ignored), and the class names.

    Args:
        merge: five classes; otherwise every code but outside_roi and exclude is a class.
    """
    table = np.full(256, IGNORE, np.uint8)
    if merge:
        for code in range(len(CODES)):
            table[code] = _MERGE.get(code, MERGED.index('other'))
        return table, list(MERGED)
    names = [name for name in CODES if name not in ('outside_roi', 'exclude')]
    for label, name in enumerate(names):
        table[CODES.index(name)] = label
    return table, names


def split_of(name: str) -> str | None:
    """Return train, val or test by the site in a TCGA file name, None if there is none."""
    found = re.match(r'TCGA-(\w{2})-', name)
    if not found:
        return None
    return ('test' if found[1] in TEST_SITES else 'val' if found[1] in VAL_SITES else 'train')


def starts(length: int, tile: int) -> list[int]:
    """Return where tiles of a side begin: without overlap, but the last ends at the border."""
    if length <= tile:
        return [0]
    return sorted({*range(0, length - tile + 1, tile), length - tile})


def prepare_bcss(src: Path, dst: Path, report: Report, tile: int = 512, mpp: float = MPP,
                 merge: bool = True, min_labelled: float = 0.1) -> None:
    """Prepare BCSS: ``dst/BCSS/{train,val,test}/{images,masks}/*.png`` and ``classes.json``.

    Args:
        src: folder with ``rgbs_colorNormalized/`` (or ``rgbs/``, ``images/``) and ``masks/``.
        dst: folder of datasets.
        report: told what was written and what is odd.
        tile: side of the tiles in pixels; smaller regions are filled up with ignored white.
        mpp: µm per pixel of the tiles; the regions have 0.25.
        merge: five classes instead of twenty.
        min_labelled: leave out tiles with a smaller share of pixels that are not ignored.

    Raises:
        UserError: there are no such folders, no pair of files in them, or tiles of an earlier
            run with other options.
    """
    folders = {p.name.lower(): p for p in folders_below(src)}
    rgbs = next((folders[n] for n in ('rgbs_colornormalized', 'rgbs', 'images') if n in folders),
                None)
    if rgbs is None or 'masks' not in folders:
        raise UserError('this is not the layout of BCSS', where=str(src),
                        expected="folders 'rgbs_colorNormalized' and 'masks'")
    pairs = pair_up(files_in(rgbs, IMAGES),
                    by_stem(files_in(folders['masks'], ('.png',)), report), report)
    if not pairs:
        raise UserError('not one region has both image and mask', where=str(src))
    cut = {path.name.rpartition('_x')[0] for path in (dst / 'BCSS').glob('*/images/*.png')}
    go_on_with(dst / 'BCSS' / 'options.json', dict(
        tile=tile, mpp=mpp, merge=merge, min_labelled=min_labelled), src,
        [file for pair in pairs for file in (pair.image, pair.label)],
        lambda file: file.stem in cut)
    report.expect('regions', len(pairs), 151)
    table, classes = code_table(merge)
    regions: Counter[str] = Counter()
    tiles: Counter[str] = Counter()
    for pair in progress(pairs, 'BCSS'):
        split = split_of(pair.image.name)
        if split is None:
            report.problem(pair.image, 'no site in its name (TCGA-XX-...); left out')
            continue
        loaded = _load(pair.image, pair.label, report)
        if loaded is None:
            continue
        regions[split] += 1
        image, codes = _resized(*loaded, MPP / mpp)
        tiles[split] += _cut(image, table[codes], tile, min_labelled,
                             dst / 'BCSS' / split, pair.image.stem)
    for split in ('train', 'val', 'test'):
        report.facts[split] = f'{regions[split]} regions, {tiles[split]} tiles'
    write_json(dst / 'BCSS' / 'classes.json', dict(classes=classes, ignore_index=IGNORE, mpp=mpp))


def _load(image: Path, mask: Path, report: Report) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        pixels, (codes, colours) = read_tile(image), read_mask(mask)
    except UserError as error:
        report.problem(mask, f'{error}; left out')
        return None
    if colours:
        report.problem(mask, 'holds colours, not the codes of BCSS; left out')
        return None
    if codes.shape != pixels.shape[:2]:
        report.problem(mask, f'is {codes.shape[1]} x {codes.shape[0]} px, its image is '
                             f'{pixels.shape[1]} x {pixels.shape[0]} px; left out')
        return None
    unknown = sorted(set(np.unique(codes).tolist()) - set(range(len(CODES))))
    if unknown:
        report.note(mask, f'unknown codes {unknown} are ignored')
    return pixels, np.where((codes >= 0) & (codes < len(CODES)), codes, IGNORE).astype(np.uint8)


def _resized(image: np.ndarray, codes: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    if scale == 1:
        return image, codes
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
    return image, cv2.resize(codes, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _cut(image: np.ndarray, labels: np.ndarray, side: int, min_labelled: float, folder: Path,
         stem: str) -> int:
    """Write the tiles of a region that are labelled enough; return their number."""
    bottom, right = (max(side - n, 0) for n in labels.shape)
    image = np.pad(image, ((0, bottom), (0, right), (0, 0)), constant_values=255)
    labels = np.pad(labels, ((0, bottom), (0, right)), constant_values=IGNORE)
    count = 0
    for y in starts(labels.shape[0], side):
        for x in starts(labels.shape[1], side):
            mask = labels[y:y + side, x:x + side]
            if (mask != IGNORE).mean() < min_labelled:
                continue
            name = f'{stem}_x{x:05d}_y{y:05d}.png'
            count += 1
            # The mask is written last: a tile with a mask is complete.
            if not (folder / 'masks' / name).exists():
                write_png(folder / 'images' / name, image[y:y + side, x:x + side])
                write_png(folder / 'masks' / name, mask)
    return count
