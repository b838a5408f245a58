"""The labelled tissue of a study: which tiles learn, which are tested, what is asked of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openselfsup.datasets import ImageFolder
from openselfsup.errors import UserError
from openselfsup.evaluation.copies import same_files
from openselfsup.evaluation.patients import check_pattern, patients_of
from openselfsup.evaluation.sampling import hold_out

#: EBHI-SEG (Shi et al. 2023): the case in a file name, and classes that are told apart alike.
CASE = r'GT([A-Za-z]*\d+)-'
MERGED = {'Polyp': 'Polyp + Serrated', 'Serrated_adenoma': 'Polyp + Serrated',
          'High-grade_IN': 'High-grade + Adenocarcinoma',
          'Adenocarcinoma': 'High-grade + Adenocarcinoma'}


@dataclass(frozen=True)
class Tiles:
    """Tiles with two labellings and the case of each.

    Attributes:
        source: where they come from; ``indices`` are those of this part.
        indices: int64 (N,).
        labels: by labelling ('4 classes', '6 classes'): class of each tile, int64 (N,).
        cases: case of each tile, (N,).
    """

    source: ImageFolder
    indices: np.ndarray
    labels: dict[str, np.ndarray]
    cases: np.ndarray

    def part(self, chosen: np.ndarray) -> 'Tiles':
        """Return some of the tiles, by their place among these."""
        return Tiles(self.source, self.indices[chosen],
                     {name: labels[chosen] for name, labels in self.labels.items()},
                     self.cases[chosen])


def read_tiles(folder: Path, pattern: str = CASE, classes: list[str] | None = None) -> Tiles:
    """Read class folders; the labelling of merged classes is the first.

    Args:
        folder: of class folders.
        pattern: regular expression whose first group is the case, in the path of each tile.
        classes: the only ones that may occur, in the order of their labels; by default those
            that there are.

    Raises:
        UserError: there is no such folder, or another class, or the pattern finds no case, or the
            same in all.
    """
    source = ImageFolder(str(folder), classes=classes)
    paths = [source.path(index) for index in range(len(source))]
    cases = patients_of(paths, pattern)
    check_pattern(pattern, cases, paths)
    own = np.asarray(source.require_labels())
    names = source.require_classes()
    merged = [MERGED.get(name, name) for name in names]
    order = sorted(set(merged))
    labels = np.array([order.index(name) for name in merged])[own]
    labellings = {f'{len(order)} classes': labels}
    if len(order) < len(names):
        labellings[f'{len(names)} classes'] = own
    return Tiles(source, np.arange(len(source)), labellings, cases)


def parts(data: Path, final: bool, pattern: str = CASE, seed: int = 0) -> tuple[Tiles, Tiles]:
    """Return the tiles that learn and those that are tested.

    Args:
        data: folder with ``train`` and ``test``, class folders each.
        final: test on ``test``. Otherwise a third of the training cases is held out, and
            ``test`` is not read: everything is chosen there.
        pattern: of the case in a tile's path, see :func:`read_tiles`.
        seed: draws what is held out.

    Raises:
        UserError: the folder has no such parts, or both have a case or a file in common, or the
            test has a class that nothing is learnt of, or no case can be held out.
    """
    if not (data / 'train').is_dir():
        raise UserError('there are no training tiles', where=str(data / 'train'),
                        expected='--data DIR with train/CLASS/*.png, and test/CLASS/*.png')
    train = read_tiles(data / 'train', pattern)
    if not final:
        kept, held = _held_out(train, seed)
        return train.part(kept), train.part(held)
    test = read_tiles(data / 'test', pattern, train.source.classes)
    if shared := sorted(set(train.cases) & set(test.cases)):
        raise UserError(f'{len(shared)} cases are in both parts, such as {shared[0]}',
                        where=str(data), expected='cases of their own in train and test')
    learnt, tested = same_files(train.source, test.source)
    if len(copies := np.flatnonzero(np.isin(tested, learnt))):
        raise UserError(f'{len(copies)} of {len(tested)} test tiles are byte for byte training '
                        f'tiles, such as {test.source.path(int(copies[0]))}', where=str(data),
                        expected='tiles of their own in train and test')
    return train, test


def _held_out(train: Tiles, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the tiles that learn and of those of a third of the cases.

    A tile of another case that is a copy of one that learns is in neither.
    """
    finest = list(train.labels.values())[-1]
    for labels in train.labels.values():
        kept, held = hold_out(labels, 1 / 3, seed, train.cases)
        if len(np.unique(finest[kept])) == len(np.unique(finest)):
            break  # of merged classes a rare part may have been held out whole
    copies = same_files(train.source)[0]
    held = held[~np.isin(copies[held], copies[kept])]
    if not len(held):
        raise UserError('no case can be held out to choose by: each is all that there is of some '
                        'class, or holds copies of the tiles of others', where=train.source.name,
                        expected='two cases or more of each class')
    return kept, held


def few(labels: np.ndarray, share: float, seed: int, at_least: int = 5) -> np.ndarray:
    """Return the labelled tiles: a share of each class, at least so many (or all there are)."""
    chosen = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        own = own[np.random.default_rng([seed, int(label)]).permutation(len(own))]
        chosen.append(own[:max(at_least, round(share * len(own)))])
    return np.sort(np.concatenate(chosen))
