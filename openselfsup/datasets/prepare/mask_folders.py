"""Folders of images and masks: pairs, and everything that the masks hold, before training."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import UserError, nearest
from ...progress import progress
from ..headers import SUFFIXES, TileError
from ..listing import files_in
from ..parallel import default_workers, read_headers
from .mask_codes import CodeTable, advice, shares
from .masks import LOSSY, MASKS, read_mask
from .report import Report

_NAMED = 5  # files that a message names

Pair = tuple[Path, Path]  # an image and its mask


@dataclass
class Survey:
    """What the masks of a folder hold.

    Attributes:
        values: pixels by value, codes or colours.
        labels: pixels by class.
    """

    values: Counter = field(default_factory=Counter)
    labels: Counter = field(default_factory=Counter)


def pair_masks(images: str | Path, masks: str | Path, report: Report) -> list[Pair]:
    """Return images and the masks of the same stem, in natural order of the images.

    Where a folder holds none of them itself, those of the folders below it are paired by their
    paths from there. An image without a mask is a problem, and so are two of one stem; a mask
    without an image is noted.

    Raises:
        UserError: a folder is missing, or there is no image or no mask in it.
    """
    if Path(images).resolve() == Path(masks).resolve():
        raise UserError('images and masks lie in one folder', where=str(images),
                        expected='a folder each, with equal names')
    found = {}
    for folder, suffixes in ((Path(images), SUFFIXES), (Path(masks), (*MASKS, *LOSSY))):
        by_stem: dict[str, list[Path]] = {}
        for path in files_in(folder, suffixes) or files_in(folder, suffixes, deep=True):
            stem = path.relative_to(folder).with_suffix('').as_posix()
            by_stem.setdefault(stem, []).append(path)
        if not by_stem:
            raise UserError('there is not one file to read', where=str(folder),
                            expected=', '.join(suffixes))
        for several in by_stem.values():
            if len(several) > 1:
                report.problem(folder, 'more than one file of one name: '
                               + ', '.join(path.name for path in several))
        found[folder] = {stem: several[0] for stem, several in by_stem.items()}
    own, theirs = found.values()
    alone = [path.name for stem, path in own.items() if stem not in theirs]
    if alone:
        stem = next(stem for stem in own if stem not in theirs)
        free = [t for t in theirs if t not in own]  # no other image's mask
        close = nearest(stem, free) or next((t for t in free if t.startswith(stem)), None)
        report.problem(images, f'{len(alone)} of {len(own)} images have no mask of the same name '
                       f'in {masks}: {", ".join(alone[:_NAMED])}'
                       + (f"; is '{theirs[close].name}' that of {alone[0]}?" if close else ''))
    if extra := [path.name for stem, path in theirs.items() if stem not in own]:
        report.note(masks, f'{len(extra)} masks have no image: {", ".join(extra[:_NAMED])}')
    return [(path, theirs[stem]) for stem, path in own.items() if stem in theirs]


def survey(pairs: Sequence[Pair], table: CodeTable, name: str, report: Report) -> Survey:
    """Read every mask: sizes, codes and their counts.

    Args:
        pairs: images and masks.
        table: what the config says of codes.
        name: of the set, for the report.
        report: gets the counts as a fact, and a problem for each mask that cannot be used and
            for codes that the table does not name, with what to write.
    """
    found, coloured = Survey(), False
    unknown: Counter[int] = Counter()
    strange: list[str] = []
    headers = read_headers([str(image) for image, _ in pairs])
    with ThreadPoolExecutor(default_workers(), 'masks') as pool:
        seen = pool.map(lambda mask: _look(mask, table), [mask for _, mask in pairs])
        for (_, mask), header, look in progress(list(zip(pairs, headers, seen)), name):
            if isinstance(header, TileError):
                report.problems.append(str(header))
            if isinstance(look, UserError):
                report.problems.append(str(look))
                continue
            height, width = look.size
            if not isinstance(header, TileError) and look.size != (header.height, header.width):
                report.problem(mask, f'is {width} x {height} px, its image is {header.width} '
                                     f'x {header.height} px')
            if look.coloured and not table.colours:
                coloured = True
                strange.append(mask.name)
                continue
            found.values.update(look.values)
            if look.labels.pop(-1, 0):
                strange.append(mask.name)
                unknown.update({v: n for v, n in look.values.items() if v not in table.named})
            found.labels.update(look.labels)
    if strange:
        _tell_strange(strange, pairs, coloured, unknown, found, table, report)
    total = found.labels.total() or 1
    report.facts[name] = f'{len(pairs)} tiles: ' + ', '.join(
        f'{table.name(label)} {count / total:.1%}' for label, count in sorted(
            found.labels.items())) + f'; codes {shares(found.values, table.colours)}'
    return found


class _Look(NamedTuple):
    """One mask: whether it holds colours, pixels by value and by label, height and width."""

    coloured: bool
    values: Counter
    labels: Counter
    size: tuple[int, int]


def _look(mask: Path, table: CodeTable) -> _Look | UserError:
    try:
        read = read_mask(mask, table.colours)
    except UserError as error:
        return error
    values, places = np.unique(read.values, return_inverse=True)
    counts = np.bincount(places.ravel())
    own = Counter(dict(zip(values.tolist(), counts.tolist())))
    labels, counts = np.unique(table.labels(read), return_counts=True)
    return _Look(read.colours, own, Counter(dict(zip(labels.tolist(), counts.tolist()))),
                 read.values.shape)


def _tell_strange(strange: list[str], pairs: Sequence[Pair], coloured: bool, unknown: Counter,
                  found: Survey, table: CodeTable, report: Report) -> None:
    """Tell masks of colours where codes are wanted, or masks whose values are no class.

    Args:
        strange: names of the masks.
        pairs: all images and masks.
        coloured: whether some of the masks hold colours, which is then told of all.
        unknown: pixels by value that is no class.
        found: what the other masks hold.
        table: what the config says of codes.
        report: gets the problem.
    """
    files = f'{", ".join(strange[:_NAMED])}{" ..." if len(strange) > _NAMED else ""}'
    if coloured:
        colours = _all_colours([mask for _, mask in pairs])
        said = (f'masks hold colours ({files}): {shares(colours, True)}; '
                f'{advice(colours, True, table)}')
    else:
        said = (f'masks hold values that are no class ({files}): '
                f'{shares(unknown, table.colours)}; all are '
                f'{shares(found.values, table.colours)}; '
                f'{advice(found.values, table.colours, table)}')
    report.problem(pairs[0][1].parent, f'{len(strange)} {said}')


def _all_colours(masks: Sequence[Path]) -> Counter:
    """Count the pixels of each colour, those of grey masks too."""
    colours: Counter = Counter()
    for mask in masks:
        try:
            values, counts = np.unique(read_mask(mask, colours=True).values, return_counts=True)
        except UserError:  # told already, or of values that are no colours
            continue
        colours.update(dict(zip(values.tolist(), counts.tolist())))
    return colours


def judge(train: Survey, test: Survey, table: CodeTable, report: Report) -> None:
    """Tell which classes cannot be learned or scored, whatever the model does.

    Fewer than two classes to learn, and nothing to score, are problems.
    """
    colours = table.colours
    present = {name: {label for label, count in found.labels.items()
                      if count and label != table.ignore_index}
               for name, found in (('train', train), ('test', test))}
    if len(table.classes) > 1 and len(present['train']) < 2:
        only = ''.join(table.classes[label] for label in present['train'])
        report.problem('train masks', (
            f'every pixel that counts is of class {only!r}, there is nothing to tell apart'
            if only else 'no pixel counts') + f': the masks hold {shares(train.values, colours)}; '
            f'{advice(train.values, colours, table)}')
    if not present['test']:
        report.problem('test masks', 'no pixel counts: there is nothing to score')
    for label, name in enumerate(table.classes):
        if label not in present['train'] and len(present['train']) > 1:
            report.note('train masks', f"class '{name}' never occurs: it cannot be learned"
                        + (', and its Dice will be 0' if label in present['test'] else ''))
        if label not in present['test'] and present['test']:
            report.note('test masks', f"class '{name}' never occurs: it has no Dice, or 0 where "
                        'it is found')
