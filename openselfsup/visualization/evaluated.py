"""What the sections of a report draw on: an evaluation as its folder holds it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from ..evaluation.arrays import read_arrays
from ..evaluation.results import Results, Row, read_results


class Evaluated(NamedTuple):
    """What the sections draw on: the folder, the results, and the arrays (None if missing)."""

    folder: Path
    results: Results
    arrays: dict[str, np.ndarray] | None
    work_dir: Path | None = None


def read_evaluation(folder: str | Path, work_dir: str | Path | None = None) -> Evaluated:
    """Read the results and arrays of an evaluation."""
    folder = Path(folder)
    results = read_results(folder)
    return Evaluated(folder, results, read_arrays(folder, results.created),
                     None if work_dir is None else Path(work_dir))


def main_row(run: Evaluated) -> Row:
    """Return the row that matrix and pictures show."""
    if run.arrays is not None:
        return run.results.rows[int(run.arrays['main_row'])]
    if not run.results.rows:
        raise UserError('the results hold no rows', where=str(run.folder))
    return next((row for row in run.results.rows if row.diverged is None), run.results.rows[0])


def row_in_words(row: Row) -> str:
    """Return which classifier a matrix or picture shows."""
    return (f'{row.protocol} on the features of {row.features}, '
            f'{100 * row.fraction:g} % labelled, seed {row.seed}.')
