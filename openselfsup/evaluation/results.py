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
from .metrics import SCORES

SCHEMA = 1
FILE = 'results.json'


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
        confusion: C x C counts, [true class][predicted class].
        history: loss, and accuracy and cross-entropy on the validation tiles, of each epoch;
            empty for protocols on cached features.
        seconds: time of fitting and testing, without the cached features.
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
    history: list[dict[str, float]]
    seconds: float


@dataclass
class Summary:
    """Rows that differ only in the seed.

    Attributes:
        protocol, features, fraction, honest: as in :class:`Row`.
        seeds: the seeds.
        scores: by name: ``mean``, ``sd`` over the seeds (None for one seed), and ``low`` and
            ``high``, the 95 % interval of the mean when test tiles are redrawn.
    """

    protocol: str
    features: str
    fraction: float
    honest: bool
    seeds: list[int]
    scores: dict[str, dict[str, float | None]]


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
    schema: int = SCHEMA

    def write(self, folder: str | Path) -> Path:
        """Write ``results.json`` into a folder and return its path."""
        path = Path(folder) / FILE
        text = json.dumps(plain(dataclasses.asdict(self)), indent=1, allow_nan=False)
        path.write_text(text + '\n', encoding='utf-8')
        return path


def read_results(path: str | Path) -> Results:
    """Read a ``results.json``, or the one in a folder.

    Raises:
        UserError: no such file, another schema, or fields that are missing or unknown.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise UserError('no such file', where=str(path),
                        expected='the folder of an evaluation, with its results.json') from None
    except ValueError as error:
        raise UserError(f'this is no JSON: {error}', where=str(path)) from None
    if not isinstance(found, dict) or found.get('schema') != SCHEMA:
        version = found.get('schema') if isinstance(found, dict) else None
        raise UserError(f'the schema is {version}', where=str(path), expected=str(SCHEMA))
    results = _build(Results, found, path, 'results')
    results.rows = [_build(Row, row, path, f'rows[{i}]') for i, row in enumerate(results.rows)]
    results.summary = [_build(Summary, line, path, f'summary[{i}]')
                       for i, line in enumerate(results.summary)]
    return results


def _build(cls: type, found: Any, path: Path, where: str) -> Any:
    names = {f.name for f in dataclasses.fields(cls)}
    if not isinstance(found, dict) or set(found) != names:
        have = set(found) if isinstance(found, dict) else set()
        wrong = [f'{verb} {", ".join(sorted(fields))}' for verb, fields in
                 (('lacks', names - have), ('has unknown', have - names)) if fields]
        raise UserError(f'{where} ' + ' and '.join(wrong), where=str(path),
                        expected='what this version of the library writes')
    if cls in (Row, Summary) and set(found['scores']) != set(SCORES):
        raise UserError(f'{where} has the scores {sorted(found["scores"])}', where=str(path),
                        expected=', '.join(SCORES))
    return cls(**found)


def plain(value: Any) -> Any:
    """Return a value that JSON can hold: NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f'{value:.8g}') if math.isfinite(value) else None
    return value
