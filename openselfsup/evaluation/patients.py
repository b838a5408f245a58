"""Which patient a tile is of, told from its path."""

import re
from collections.abc import Sequence

import numpy as np

from ..checkpoints.names import shorten
from ..datasets.sources import Source
from ..errors import UserError

# A TCGA barcode up to the patient, e.g. TCGA-A6-2671; other naming schemes are given as a
# regular expression.
TCGA_PATIENT = r'(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})'
WINDOW = '#xywh='  # between the file and the place in it, in the path of a part of an image


def patients_of(paths: Sequence[str], pattern: str | None = None) -> np.ndarray:
    """Return the patient of each tile, told from its path; '' where the path does not tell.

    Args:
        paths: the tiles.
        pattern: regular expression whose first group is the patient; TCGA barcodes if None. The
            image stands for its patient then where a window of it tells none.

    Raises:
        UserError: the pattern is no regular expression.
    """
    compiled = compile_pattern(pattern)
    found = (compiled.search(path) for path in paths)
    told = [(m[1 if compiled.groups else 0] or '') if m else '' for m in found]
    if pattern is None:
        told = [known or path.rpartition(WINDOW)[0] for known, path in zip(told, paths)]
    return np.array(told)


def compile_pattern(pattern: str | None) -> re.Pattern[str]:
    """Return the compiled pattern of patients, that of TCGA barcodes if there is none.

    Raises:
        UserError: it is no regular expression.
    """
    try:
        return re.compile(pattern or TCGA_PATIENT)
    except re.error as error:
        raise UserError(f"'{pattern}' is no regular expression: {error}",
                        where='--patient_pattern',
                        expected="one whose first group is the patient, such as '_(P[0-9]+)_'"
                        ) from None


def all_or_none(told: np.ndarray) -> np.ndarray | None:
    """Return the patients if every path told its own, else None."""
    return told if len(told) and (told != '').all() else None


def redrawn(patients: np.ndarray | None) -> np.ndarray | None:
    """Return the patients if intervals redraw them: tiles of one patient are redrawn together.

    Args:
        patients: of each tile, or None where they are unknown.

    Returns:
        None where there is nothing to redraw but tiles: of unknown patients, or a single one.
    """
    return None if patients is None or len(np.unique(patients)) == 1 else patients


def check_pattern(pattern: str | None, told: np.ndarray, paths: Sequence[str]) -> None:
    """Refuse a pattern of the user's that does not tell patients apart.

    Args:
        pattern: of the user, or None.
        told: patient of each tile, shape (N,), '' where its path does not tell.
        paths: of the tiles.

    Raises:
        UserError: some path tells no patient, or all tell the same.
    """
    if pattern is None:
        return
    silent = int((told == '').sum())
    if silent:
        raise UserError(f"'{pattern}' finds no patient in {silent} of {len(told)} paths, such as "
                        + paths[int((told == '').argmax())], where='--patient_pattern',
                        expected='a pattern that matches every path')
    if len(np.unique(told)) == 1:
        raise UserError(f"'{pattern}' finds the same patient, '{told[0]}', in all {len(told)} "
                        f'paths, such as {paths[0]}', where='--patient_pattern',
                        expected='a pattern whose first group differs between patients')


def nothing_to_hold_out(source: Source, groups: np.ndarray | None) -> UserError:
    """Return the error that says why no tile or no patient of a source can be held out.

    Args:
        source: all tiles.
        groups: patient of each, shape (N,), or None where they are unknown.
    """
    if groups is None:
        return UserError('every class has one tile only: none can be held out',
                         where=source.path(0), expected='several tiles of each class, or --test')
    found = np.unique(groups)
    if len(found) == 1:
        why = f"all {len(source)} tiles are of one patient, '{found[0]}'"
    else:
        owners = {name: np.unique(groups[source.require_labels() == label])
                  for label, name in enumerate(source.require_classes())}
        only = [f"'{name}' is of '{own[0]}' alone" for name, own in owners.items()
                if len(own) == 1]
        why = (f'each of the {len(found)} patients is all that the training part has of some '
               f'class: {shorten(only, 4)}')
    return UserError(f'no patient can be held out: {why}', where='--holdout',
                     expected='two patients or more of each class, other class folders, or a '
                              '--test folder of other patients')
