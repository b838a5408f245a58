"""What a segmentation found, drawn over the image, and the page that shows the worst first."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..datasets.png import write_png
from ..files import write_text
from . import page
from .page import Row

#: Blue: found and right. Orange: found, but not there. Magenta: there, but not found.
FOUND, FALSE, MISSED = (0, 114, 198), (240, 125, 0), (192, 58, 123)
LEGEND = ('Left: the image. Right: what is there, missed objects in magenta and the others in '
          'white, and what was found: blue where it covers at least half of an object, orange '
          'where it does not.')
_SIDE = 360
_SCORES = (('AP', 'AP'), ('AP50', 'AP50'), ('AP75', 'AP75'))
_OBJECTS = (('f1', 'object F1'), ('dice', 'object Dice'), ('hausdorff', 'object Hausdorff, px'),
            ('aji', 'AJI'), ('pq', 'PQ'))


def draw_overlay(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Draw an image beside itself with the outlines of true and found objects.

    Args:
        image: uint8 [H, W, 3] RGB.
        truth: instance ids, int [H, W], 0 is background.
        found: instance ids, int [H, W].

    Returns:
        uint8 [H', 2 W' + gap, 3], small images enlarged.
    """
    scale = max(_SIDE / min(image.shape[:2]), 1.0) if min(image.shape[:2]) < _SIDE else 1.0
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    truth, found = (cv2.resize(ids.astype(np.int32).astype(np.float32), large.shape[1::-1],
                               interpolation=cv2.INTER_NEAREST).astype(np.int32)
                    for ids in (truth, found))
    drawn = large.copy()
    hits = {}
    for number in np.unique(found[found > 0]):
        mask = found == number
        under = np.bincount(truth[mask])
        under[0] = 0
        partner = int(under.argmax()) if under.any() else 0
        if partner and 2 * under[partner] >= (truth == partner).sum():
            hits[int(number)] = partner
    for number in np.unique(truth[truth > 0]):
        missed = int(number) not in hits.values()
        _outline(drawn, truth == number, MISSED if missed else (255, 255, 255), 2)
    for number in np.unique(found[found > 0]):
        _outline(drawn, found == number, FOUND if int(number) in hits else FALSE, 2)
    gap = np.full((large.shape[0], 8, 3), 255, np.uint8)
    return np.hstack([large, gap, drawn])


def draw_semantic_overlay(image: np.ndarray, truth: np.ndarray, found: np.ndarray,
                          colors: Sequence[tuple[int, int, int]],
                          ignore_index: int = 255) -> np.ndarray:
    """Draw an image, its true classes and the found ones beside each other.

    Args:
        image: uint8 [H, W, 3] RGB.
        truth: classes, int [H, W]; ignored pixels show the bare image.
        found: classes, int [H, W].
        colors: RGB of each class.
        ignore_index: true value of ignored pixels.
    """
    table = np.array(colors, np.float32)
    parts = [image]
    for labels in (truth, found):
        shown = labels != ignore_index
        tinted = image.astype(np.float32)
        tinted[shown] = 0.5 * tinted[shown] + 0.5 * table[labels[shown]]
        parts += [np.full((image.shape[0], 6, 3), 255, np.uint8), tinted.astype(np.uint8)]
    return np.hstack(parts)


def draw_outlined(image: np.ndarray, truth: np.ndarray, found: np.ndarray | None,
                  colors: Sequence[tuple[int, int, int]], width: int) -> np.ndarray:
    """Draw found classes over an image, and the outline of the true ones.

    Args:
        image: uint8 [H, W, 3] RGB.
        truth: classes, int [H, W]; pixels of other values do not count.
        found: classes, int [H, W]; of two classes the first shows the bare image. None: none.
        colors: RGB of each class.
        width: of the result in pixels.
    """
    size = (width, max(1, round(width * image.shape[0] / image.shape[1])))
    drawn = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if found is not None:
        found = cv2.resize(found, size, interpolation=cv2.INTER_NEAREST)
        shown = found > 0 if len(colors) == 2 else np.ones(found.shape, bool)
        table = np.array(colors, np.float32)
        drawn[shown] = (0.5 * drawn[shown] + 0.5 * table[found[shown]]).astype(np.uint8)
    truth = cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST)
    for label in range(len(colors) == 2, len(colors)):  # others do not count
        _outline(drawn, truth == label, (27, 27, 27), 4)  # seen on white glass too
        _outline(drawn, truth == label, (255, 255, 255), 2)
    return drawn


def draw_legend(names: Sequence[str], colors: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Draw a line of coloured squares with names, uint8 [H, W, 3]."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    widths = [46 + cv2.getTextSize(name, font, size, 1)[0][0] for name in names]
    drawn = np.full((28, sum(widths), 3), 255, np.uint8)
    x = 4
    for name, color, width in zip(names, colors, widths):
        cv2.rectangle(drawn, (x, 6), (x + 16, 22), color, -1)
        cv2.putText(drawn, name, (x + 22, 19), font, size, (27, 27, 27), 1, cv2.LINE_AA)
        x += width
    return drawn


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """Return distinct RGB colours for classes."""
    colors = [(192, 58, 123), (0, 150, 125), (0, 114, 198), (240, 125, 0), (120, 120, 120)]
    hues = np.linspace(0, 180, max(count - len(colors), 1), endpoint=False)
    for hue in hues:
        red, green, blue = cv2.cvtColor(
            np.array([[[int(hue), 200, 220]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
        colors.append((int(red), int(green), int(blue)))
    return colors[:count]


def _outline(image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int],
             width: int) -> None:
    curves, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, curves, -1, color, width, cv2.LINE_AA)


def write_overlay_page(folder: str | Path, results: dict[str, Any],
                       draw: Callable[[str], np.ndarray] | None = None,
                       others: Sequence[dict[str, Any]] = (), limit: int = 24) -> Path:
    """Write ``index.html`` with the scores and the images, worst first, into a folder.

    Args:
        folder: where ``results.json`` lies.
        results: what ``results.json`` holds: ``dataset``, ``run`` and ``scores`` by subset, and
            ``images``, the scores of each image by file name.
        draw: returns the overlay of a file name, uint8 [H, W, 3]; None shows none.
        others: results of other runs, for the comparison.
        limit: how many images are shown.
    """
    folder = Path(folder)
    sections = [page.heading(f"{results['dataset']}: instance segmentation",
                             f"{results['run'].get('backend')}, started from "
                             f"{_start(results)}"),
                page.facts(_facts(results['run'])), _comparison([*others, results]),
                _subsets(results['scores'])]
    if draw is not None and results['images']:
        order = sorted(results['images'], key=lambda name: results['images'][name]['dice'])
        pictures = [page.paragraph(LEGEND)]
        for place, name in enumerate(order[:limit], 1):
            path = folder / 'overlays' / f'{place:02d}_{Path(name).stem}.png'
            write_png(path, draw(name))
            scores = results['images'][name]
            caption = (f"{name}: object Dice {scores['dice']:.3f}, {scores['tp']} found, "
                       f"{scores['fp']} false, {scores['fn']} missed.")
            pictures.append(page.picture(folder, path.relative_to(folder).as_posix(), caption))
        for stale in set((folder / 'overlays').glob('*.png')) - {
                folder / 'overlays' / f'{i:02d}_{Path(n).stem}.png'
                for i, n in enumerate(order[:limit], 1)}:
            stale.unlink()
        sections.append(page.section(f'Images, worst first ({len(pictures) - 1} of {len(order)})',
                                     *pictures))
    out = folder / 'index.html'
    write_text(out, page.page(f"{results['dataset']}: instance segmentation", sections),
               'backslashreplace')
    return out


def _start(results: dict[str, Any]) -> str:
    start = results['run'].get('initialised', 'random')
    return 'random weights' if start == 'random' else os.path.basename(start)


def _facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    names = (('iterations', 'Iterations'), ('minutes', 'Minutes'),
             ('seconds_per_iteration', 'Seconds per iteration'), ('precision', 'Precision'),
             ('device', 'Device'), ('config', 'Config'))
    return [(name, os.path.basename(str(run[key]))) for key, name in names if key in run]


def _comparison(runs: Sequence[dict[str, Any]]) -> str:
    """A table of the main score of each run, the last one in bold."""
    kind = 'segm' if 'segm' in runs[-1]['scores']['all'] else 'bbox'
    rows = [Row(f'from {_start(o)}, {o["run"].get("iterations", "?")} iterations',
                o['scores']['all'].get(kind, {}).get('AP'), None, o is runs[-1])
            for o in runs]
    return page.section('Where it started from, and what came out', page.score_table(
        rows, 'Initial weights', 'mask AP, %' if kind == 'segm' else 'box AP, %'))


def _subsets(scores: dict[str, Any]) -> str:
    """A table of all scores, a line for each, a column for each subset."""
    lines = []
    for kind, word in (('segm', 'mask'), ('bbox', 'box')):
        for key, name in _SCORES:
            cells = [s.get(kind, {}).get(key) for s in scores.values()]
            if any(c is not None for c in cells):
                lines.append([f'{word} {name}, %'] + [_number(c, 100) for c in cells])
    for key, name in _OBJECTS:
        cells = [s.get('objects', {}).get(key) for s in scores.values()]
        if any(c is not None for c in cells):
            lines.append([name] + [_number(c, 1, 1 if key == 'hausdorff' else 3) for c in cells])
    return page.section('All scores', page.table(['Score', *scores], lines))


def _number(value: float | None, factor: float, digits: int = 1) -> str:
    return '–' if value is None else f'{factor * value:.{digits}f}'
