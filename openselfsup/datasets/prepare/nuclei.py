"""MoNuSeg: nuclei, as the challenge's polygons (XML) or as images of instance ids."""

import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...progress import progress
from ..headers import read_header
from ..listing import files_in
from ..png import write_png
from .coco import Pair, write_split
from .glands import IMAGES, by_stem, pair_up
from .instances import decode
from .report import Report


def prepare_monuseg(src: Path, dst: Path, report: Report, masks: str = 'rle',
                    val: float = 0.2) -> None:
    """Prepare MoNuSeg: ``dst/MoNuSeg/{train,test}`` and their JSON.

    Args:
        src: folder with ``Tissue Images/*.tif`` and ``Annotations/*.xml`` (the challenge's
            training set), or ``images/`` and ``instances/*.png`` of instance ids.
        dst: folder of datasets.
        report: told what was written and what is odd.
        masks: 'rle' or 'polygon'.
        val: share of the images that becomes test, spread evenly over their natural order: of
            1/n every n-th one. 0 writes no test.

    Raises:
        UserError: there are no such folders, or train or test would be without an image.
    """
    images = [p for p in files_in(src, IMAGES, deep=True) if p.parent.name.lower() in
              ('images', 'tissue images', 'tissueimages')]
    ids = by_stem([p for p in files_in(src, ('.png', '.tif'), deep=True)
                   if p.parent.name.lower() == 'instances'], report)
    polygons = by_stem(files_in(src, ('.xml',), deep=True), report)
    if not images or not (ids or polygons):
        raise UserError('this is not the layout of MoNuSeg', where=str(src),
                        expected="'Tissue Images' and 'Annotations', or 'images' and 'instances'")
    if not val and (old := dst / 'MoNuSeg' / 'annotations' / 'test.json').exists():
        raise UserError('this is of an earlier run that held images out, which become train now',
                        where=str(old), expected='another DST')
    if not ids:
        ids = _draw_all(images, polygons, dst / 'MoNuSeg' / 'instances', report)
    pairs = pair_up(images, ids, report)
    share = Fraction(val).limit_denominator(1000)  # of floats, 49 * (1 / 49) is below 1
    split: dict[str, list[Pair]] = dict(train=[], test=[])
    for i, pair in enumerate(pairs):
        split['test' if (i + 1) * share // 1 > i * share // 1 else 'train'].append(pair)
    if not val:
        split.pop('test')
    for name, chosen in split.items():
        if pairs and not chosen:
            raise UserError(f'of {len(pairs)} images none is left for {name}', where=f'--val {val}',
                            expected='another share')
    for name, chosen in split.items():
        write_split(chosen, dst / 'MoNuSeg', name, 'nucleus', report, masks)


def draw_polygons(xml: Path, height: int, width: int) -> np.ndarray:
    """Fill the polygons of an annotation file of the challenge, as its own code does.

    That is MATLAB's poly2mask, to which the centre of the first pixel lies at 1.

    Args:
        xml: file of ``Region`` elements with ``Vertex`` elements of attributes X and Y.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        Instance ids, uint16 [height, width]; where nuclei overlap, the first has the pixel.

    Raises:
        UserError: the file is not XML, has a vertex that is no finite place near the image, or
            more nuclei than ids.
    """
    try:
        regions = ElementTree.parse(xml).getroot().iter('Region')
    except OSError as error:
        raise UserError(error.strerror or str(error), where=str(xml)) from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # of encodings, too
        raise UserError(f'not valid XML: {error}', where=str(xml)) from None
    ids = np.zeros((height, width), np.uint16)
    number = 0
    for region in regions:
        try:
            points = [(float(v.attrib['X']), float(v.attrib['Y']))
                      for v in region.iter('Vertex')]
        except (KeyError, ValueError):
            raise UserError(f'region {number + 1} has a vertex without numbers X and Y',
                            where=str(xml)) from None
        if not all(abs(value) <= 10 * max(height, width) for point in points for value in point):
            raise UserError(f'region {number + 1} has a vertex far from the image of {width} x '
                            f'{height} px', where=str(xml))
        if len(points) >= 3:
            if number == 65535:
                raise UserError('holds more than 65535 nuclei', where=str(xml))
            number += 1
            inside = decode([v - 0.5 for point in points for v in point], height, width)
            ids[inside & (ids == 0)] = number
    return ids


def _draw_all(images: list[Path], polygons: dict[str, Path], folder: Path,
              report: Report) -> dict[str, Path]:
    """Draw the polygons of all images into 16-bit PNG files."""
    drawn = {}
    for image in progress(images, 'drawing nuclei'):
        if image.stem not in polygons:
            continue
        target = folder / f'{image.stem}.png'
        try:
            header = read_header(image)
            ids = draw_polygons(polygons[image.stem], header.height, header.width)
        except UserError as error:
            report.problems.append(str(error))
            continue
        write_png(target, ids)
        drawn[image.stem] = target
    return drawn
