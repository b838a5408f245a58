"""The form of ``results.json``: its versions, and whether a file has what its readers rely on.

======= ========================================================================================
schema  what changed
======= ========================================================================================
1       the first form
2       added ``request``; ``diverged`` in rows and lines of the summary, whose numbers may all be
        null from here on; ``shared`` and ``digest`` in ``data``. Some files of schema 1 have them
        too: they were written before this table was kept.
3       added ``reading`` to ``model``: what features depend on beside the weights.
======= ========================================================================================

Whatever adds a field raises :data:`VERSION` and gets a line here and in docs/evaluation.md. Fields
are never taken away and never change their meaning, so a reader needs only those that it knows.
Scores are open: every metric, a user's own too, is one more name under ``scores``, and a file that
was written without it has nulls there when it is read.
"""

import types
import typing
from collections.abc import Iterator
from typing import Any

from .metrics import SCORES

VERSION = 3
#: In which version a field of the results, a row or a line of the summary was added, if not in 1.
SINCE = dict(request=2, diverged=2)
_DATA = dict(classes=list[str], train=dict[str, Any], test=dict[str, Any])
_PART = dict(tiles=int, first=str, by_class=dict[str, int], patients=int | None)
_MODEL = dict(name=str, path=str, tensors=str, sha256=str)
_EPOCH = dict(epoch=int, loss=float | None, accuracy=float | None, cross_entropy=float | None)
ROW_SCORE, SUMMARY_SCORE = ('value', 'low', 'high'), ('mean', 'low', 'high', 'sd')
#: Scores that every file has; all are shares.
_SCORES = ('accuracy', 'balanced_accuracy', 'macro_f1', 'precision', 'recall', 'auroc',
           'calibration_error')


def differences(record: Any, but: tuple[str, ...] = ()) -> str | None:
    """Return what is wrong with the types of a dataclass's fields (``but`` some), or None."""
    fields = typing.get_type_hints(type(record))
    return _of_fields({k: v for k, v in fields.items() if k not in but}, vars(record))


def mistakes(results: Any) -> Iterator[str]:
    """Yield what is wrong with the contents of results whose types are right."""
    places: list[tuple[str, dict[str, Any], dict]] = [
        ('data', _DATA, results.data), ('model', _MODEL, results.model),
        ('environment', dict(device=str), results.environment)]
    for place, fields, found in places:
        if wrong := _of_fields(fields, found):
            yield f'{place}.{wrong}'
            return
    for part in ('train', 'test'):
        if wrong := _of_fields(_PART, results.data[part]):
            yield f'data.{part}.{wrong}'
    classes = len(results.data['classes'])
    for i, row in enumerate(results.rows):
        yield from (f'rows[{i}].{wrong}' for wrong in (
            _of_scores(row.scores, ROW_SCORE), _of_counts(row, classes),
            *(_of_fields(_EPOCH, epoch) for epoch in row.history)) if wrong)
    for i, line in enumerate(results.summary):
        if wrong := _of_scores(line.scores, SUMMARY_SCORE):
            yield f'summary[{i}].{wrong}'


def _of_fields(fields: dict[str, Any], found: dict[str, Any]) -> str | None:
    for name, kind in fields.items():
        if name not in found:
            return f'{name} is missing'
        if not _is(found[name], kind):
            return f'{name} is {_short(found[name])}'
    return None


def _of_scores(scores: dict[str, Any], numbers: tuple[str, ...]) -> str | None:
    if missing := [name for name in _SCORES if name not in scores]:
        return f'scores lacks {", ".join(missing)}'
    for name in (*_SCORES, *(name for name in SCORES if name in scores and name not in _SCORES)):
        if not isinstance(scores[name], dict):
            return f'scores.{name} is {_short(scores[name])}'
        if wrong := _of_fields(dict.fromkeys(numbers, float | None), scores[name]):
            return f'scores.{name}.{wrong}'
        values = map(scores[name].get, numbers)
        if odd := [v for v in values if name in _SCORES and not (v is None or 0 <= v <= 1)]:
            return f'scores.{name} has the number {odd[0]}'
    return None


def _of_counts(row: Any, classes: int) -> str | None:
    if len(row.recall_by_class) != classes:
        return f'recall_by_class has {len(row.recall_by_class)} numbers for {classes} classes'
    if any(v is not None and not 0 <= v <= 1 for v in row.recall_by_class):
        return 'recall_by_class has a number that is no share'
    shape = [len(line) for line in row.confusion]
    if shape != [classes] * classes or any(n < 0 for line in row.confusion for n in line):
        return f'confusion is no table of {classes} x {classes} counts'
    return None


def _is(value: Any, kind: Any) -> bool:
    """Return whether a value that came from JSON is of a type such as ``dict[str, float]``."""
    if kind is Any:
        return True
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(_is(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(item, inner[1]) for item in value.values())
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
