"""Results as lines of text for the console."""

import math
from collections.abc import Sequence

from ..errors import UserError, nearest
from .metrics import SCORES
from .results import Results, Summary

#: Names that the published flag --eval_metrics knows beside ours.
SHORT = dict(f1='macro_f1', acc='accuracy', ece='calibration_error',
             map='mean_average_precision')
HEADINGS = dict(accuracy='Accuracy', balanced_accuracy='Balanced', macro_f1='Macro F1',
                precision='Precision', recall='Recall', auroc='AUROC',
                mean_average_precision='mAP', calibration_error='Calibration error')


def heading(name: str) -> str:
    """Return what a table calls a score."""
    return HEADINGS.get(name) or name.replace('_', ' ').capitalize()


def columns_of(names: str) -> list[str]:
    """Return the scores that a comma-separated list names.

    Raises:
        UserError: one of them is none of ours.
    """
    found = []
    for name in filter(None, (part.strip().lower() for part in names.split(','))):
        name = SHORT.get(name, name)
        if name not in SCORES:
            raise UserError(f"no score is called '{name}'", where='--eval_metrics',
                            expected='some of ' + ', '.join(SCORES),
                            nearest=nearest(name, SCORES))
        found.append(name)
    return found


def results_table(results: Results, columns: list[str]) -> str:
    """Return the summary as a table: mean ± sd over seeds, 95 % interval of the first score."""
    header = ['Protocol', 'Features', 'Labels', 'Seeds', *(heading(name) for name in columns),
              '95 % interval']
    lines = [header]
    for line in results.summary:
        cells = [percent(line.scores[name]['mean'], line.scores[name]['sd']) for name in columns]
        first = line.scores[leading(line, columns)]
        spread = f"{percent(first['low'])} - {percent(first['high'])}"
        lines.append([line.protocol, line.features, f'{100 * line.fraction:g} %',
                      str(len(line.seeds)), *cells, diverged(line) or spread])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = ['  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
            for line in lines]
    text.insert(1, '-' * len(text[0]))
    if not all(line.honest for line in results.summary):
        text.append('paper-compat: tiles drawn with replacement, moving BatchNorm statistics, and '
                    'in linear evaluation the epoch chosen on the test: not comparable')
    return '\n'.join(text)


def leading(line: Summary, columns: Sequence[str] = ('accuracy', 'mean_average_precision')) -> str:
    """Return the first of some scores that a line has, the first of all where it has none."""
    return next((name for name in columns if name in line.scores
                 and line.scores[name]['mean'] is not None
                 and not math.isnan(line.scores[name]['mean'])), columns[0])


def diverged(line: Summary) -> str:
    """Say which seeds of a line have no score, '' if all have."""
    return f"diverged (seed {', '.join(map(str, line.diverged))})" if line.diverged else ''


def percent(value: float | None, sd: float | None = None) -> str:
    """Return a share as a percentage with one decimal, and its spread where there is one."""
    if value is None or math.isnan(value):
        return '-'
    return f'{100 * value:.1f}' + (f' ± {100 * sd:.1f}' if sd is not None else '')
