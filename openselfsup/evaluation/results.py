"""The form of ``results.json``, which later versions must stay able to read.

======================= =================================================================
field                   meaning
======================= =================================================================
schema                  version of this form, :data:`SCHEMA`
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
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import atomic_file
from . import results_form as form

SCHEMA = 1
FILE = 'results.json'
_ADDED = ('request', 'diverged')  # fields that older files of this schema lack


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
            labelled ones.
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
    scores: dict[str, dict[str, float | None]]
    recall_by_class: list[float | None]
    confusion: list[list[int]]
    history: list[dict[str, float | None]]
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
    scores: dict[str, dict[str, float | None]]
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
    schema: int = SCHEMA

    def write(self, folder: str | Path) -> Path:
        """Write ``results.json`` into a folder, at once or not at all, and return its path."""
        path = Path(folder) / FILE
        text = json.dumps(plain(dataclasses.asdict(self)), indent=1, allow_nan=False)
        with atomic_file(path) as file:
            file.write(f'{text}\n'.encode())
        return path


def read_results(path: str | Path) -> Results:
    """Read a ``results.json``, or the one in a folder.

    Raises:
        UserError: no such file, no JSON (NaN and Infinity are none), another schema, or fields
            that are missing, unknown or of another form.
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
    if not isinstance(found, dict) or found.get('schema') != SCHEMA:
        version = found.get('schema') if isinstance(found, dict) else None
        raise UserError(f'the schema is {version}', where=str(path), expected=str(SCHEMA))
    results = _build(Results, found, path, 'results')
    if not all(isinstance(part, list) for part in (results.rows, results.summary)):
        raise UserError('rows or summary is no list', where=str(path))
    results.rows = [_build(Row, row, path, f'rows[{i}]') for i, row in enumerate(results.rows)]
    results.summary = [_build(Summary, line, path, f'summary[{i}]')
                       for i, line in enumerate(results.summary)]
    for wrong in form.mistakes(results):
        raise UserError(wrong, where=str(path),
                        expected='what this version of the library writes')
    return results


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f'{text} is larger than any number')
    return float(text)


def _no_number(name: str) -> None:
    raise ValueError(f'{name} is no number of JSON')


def _build(cls: type, found: Any, path: Path, where: str) -> Any:
    names = {f.name for f in dataclasses.fields(cls)}
    needed = {f.name for f in dataclasses.fields(cls) if f.name not in _ADDED}
    if not isinstance(found, dict) or not needed <= set(found) <= names:
        have = set(found) if isinstance(found, dict) else set()
        wrong = [f'{verb} {", ".join(sorted(fields))}' for verb, fields in
                 (('lacks', needed - have), ('has unknown', have - names)) if fields]
        raise UserError(f'{where} ' + ' and '.join(wrong), where=str(path),
                        expected='what this version of the library writes')
    built = cls(**found)
    if wrong := form.differences(built, but=('rows', 'summary')):
        raise UserError(f'{where}.{wrong}', where=str(path),
                        expected='what this version of the library writes')
    return built


def plain(value: Any) -> Any:
    """Return a value that JSON can hold: NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f'{value:.8g}') if math.isfinite(value) else None
    return value
