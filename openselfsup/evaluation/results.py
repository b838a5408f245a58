"""``results.json``: what an evaluation found, in a form that later versions stay able to read.

======================= =================================================================
field                   meaning
======================= =================================================================
schema                  version of this form, see :mod:`.results_form`
created                 time, ISO 8601
environment             versions of the library, Python and torch; device
model                   what was evaluated: name, path, tensors matched / expected, sha256
data                    folders, tiles, classes and tiles of each class, for both parts
notes                   sentences that belong beside every number
request                 what was asked for: protocols, shares, seeds and their settings
rows                    one for each protocol, features, labelled fraction and seed
summary                 one for each protocol, features and fraction: mean and sd over seeds
======================= =================================================================

A row is a :class:`Row`, a line of the summary a :class:`Summary`; a score is a dict of
``value``, ``low`` and ``high``, the ends of the 95 % bootstrap interval (null where a score
cannot be computed).
"""

import dataclasses
import functools
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import atomic_file
from . import results_form as form
from .metrics import SCORES

FILE = 'results.json'
logger = logging.getLogger(__name__)


@dataclass
class Row:
    """One classifier, tested once.

    Attributes:
        protocol: name and version, e.g. 'linear-v1'.
        features: what was classified: 'checkpoint' or a baseline.
        fraction: labelled share of the training part.
        seed: draws the labelled tiles, the validation tiles, the initialisation.
        honest: False where the test set or repeated tiles flatter the number (paper-compat).
        train_tiles, validation_tiles, test_tiles: how many; validation tiles are among the
            labelled ones: the mean of several splits, the sum of folds.
        settings: all that defines the protocol.
        chosen: what was selected on validation tiles.
        scores: by name, each with value, low and high.
        recall_by_class: recall of each class, None for a class the test lacks.
        confusion: C x C counts, indexed by true and predicted class.
        history: loss, and accuracy and cross-entropy on the validation tiles, of each epoch;
            empty for protocols on cached features.
        seconds: time of fitting and testing, without the cached features.
        diverged: epoch in which the training diverged, None if it did not. A row that diverged has
            no scores: every number in ``scores`` and ``recall_by_class`` is null.
    """

    protocol: str
    features: str
    fraction: float
    seed: int
    honest: bool
    train_tiles: int
    validation_tiles: int
    test_tiles: int
    settings: dict[str, Any]
    chosen: dict[str, Any]
    scores: dict[str, Any]
    recall_by_class: list[float | None]
    confusion: list[list[int]]
    history: list[dict[str, Any]]
    seconds: float
    diverged: int | None = None


@dataclass
class Summary:
    """Rows that differ only in the seed.

    Attributes:
        protocol, features, fraction, honest: as in :class:`Row`.
        seeds: the seeds.
        scores: by name: ``mean``, ``sd`` over the seeds (None for one seed), and ``low`` and
            ``high``, the 95 % interval of the mean when test tiles are redrawn. All are null
            where a seed diverged: a mean over the others would flatter.
        diverged: the seeds whose training diverged.
    """

    protocol: str
    features: str
    fraction: float
    honest: bool
    seeds: list[int]
    scores: dict[str, Any]
    diverged: list[int] = field(default_factory=list)


@dataclass
class Results:
    """Everything that an evaluation found; see the table of this module."""

    created: str
    environment: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    summary: list[Summary] = field(default_factory=list)
    request: dict[str, Any] = field(default_factory=dict)
    schema: int = form.VERSION

    def write(self, folder: str | Path) -> Path:
        """Write ``results.json`` into a folder, at once or not at all, and return its path."""
        path = Path(folder) / FILE
        text = json.dumps(plain(dataclasses.asdict(self)), indent=1, allow_nan=False)
        with atomic_file(path) as file:
            file.write(f'{text}\n'.encode())
        return path


def read_results(path: str | Path) -> Results:
    """Read a ``results.json``, or the one in a folder, of this version of the form or another.

    Fields that this version does not know are ignored, wherever they stand. A file of a newer
    version is read too if it has all that is needed; a warning says so, once.

    Raises:
        UserError: no such file, no JSON (NaN and Infinity are none), no version, or fields that
            are missing or of another form.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding='utf-8'), parse_constant=_no_number,
                           parse_float=_finite)
    except FileNotFoundError:
        raise UserError('no such file', where=str(path),
                        expected='the folder of an evaluation, with its results.json') from None
    except OSError as error:
        raise UserError(f'could not be read: {error.strerror}', where=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f'this is no JSON: {error}', where=str(path)) from None
    version = found.get('schema') if isinstance(found, dict) else None
    if type(version) is not int or version < 1:
        raise UserError(f'the schema is {version}', where=str(path),
                        expected=f'a version of the form, 1 to {form.VERSION}')
    try:
        results = _results(found, version)
    except ValueError as wrong:
        raise UserError(str(wrong), where=str(path), expected=_expected(version)) from None
    if version > form.VERSION:
        _tell_newer(str(path), version)
    return results


def _results(found: dict[str, Any], version: int) -> Results:
    results = _build(Results, found, version, 'results')
    if not all(isinstance(part, list) for part in (results.rows, results.summary)):
        raise ValueError('rows or summary is no list')
    results.rows = [_build(Row, row, version, f'rows[{i}]')
                    for i, row in enumerate(results.rows)]
    results.summary = [_build(Summary, line, version, f'summary[{i}]')
                       for i, line in enumerate(results.summary)]
    for wrong in form.mistakes(results):
        raise ValueError(wrong)
    for lines, numbers in ((results.rows, form.ROW_SCORE), (results.summary, form.SUMMARY_SCORE)):
        for line in lines:
            line.scores = {name: dict.fromkeys(numbers) for name in SCORES} | line.scores
    return results


def _build(cls: type, found: Any, version: int, where: str) -> Any:
    names = {f.name for f in dataclasses.fields(cls)}
    needed = {name for name in names if form.SINCE.get(name, 1) <= version}
    if not isinstance(found, dict):
        raise ValueError(f'{where} is no object')
    if missing := needed - set(found):
        raise ValueError(f'{where} lacks {", ".join(sorted(missing))}')
    built = cls(**{name: value for name, value in found.items() if name in names})
    if wrong := form.differences(built, but=('rows', 'summary')):
        raise ValueError(f'{where}.{wrong}')
    return built


def _expected(version: int) -> str:
    if version > form.VERSION:
        return (f'what this version of the library reads; the file is of schema {version}, which '
                f'a newer one wrote, and this one knows up to {form.VERSION}')
    return f'what schema {version} holds'


@functools.cache
def _tell_newer(path: str, version: int) -> None:
    logger.warning('%s is of schema %d, newer than the %d that this version of the library knows: '
                   'what it holds beyond that is ignored', path, version, form.VERSION)


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f'{text} is larger than any number')
    return float(text)


def _no_number(name: str) -> None:
    raise ValueError(f'{name} is no number of JSON')


def plain(value: Any) -> Any:
    """Return a value that JSON can hold: NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f'{value:.8g}') if math.isfinite(value) else None
    return value
