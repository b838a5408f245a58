"""Tables of a report: the scores, and which class was taken for which."""

from collections.abc import Sequence
from html import escape

import numpy as np

from ..evaluation.results import Summary
from ..evaluation.table import diverged, heading, leading, percent
from . import page
from .evaluated import Evaluated, main_row, row_in_words

LEFT_OUT = ('precision', 'recall')  # of the bundled scores; those of a user are all shown
FORM = {'mean', 'sd', 'low', 'high'}  # of a score; another may come from a newer version


def tables(run: Evaluated) -> str:
    """Accuracy as bars, then every score with its spread and interval, per labelled share."""
    parts = []
    for fraction in sorted({line.fraction for line in run.results.summary}):
        lines = [line for line in run.results.summary if line.fraction == fraction]
        bars = [page.Row(f'{line.protocol}: {line.features} {diverged(line)}'.strip(),
                         line.scores['accuracy']['mean'], line.scores['accuracy']['sd'],
                         line.features == 'checkpoint' and line.honest)
                for line in lines if leading(line) == 'accuracy']
        label = f'{100 * fraction:g} % of the training tiles labelled'
        parts += [page.paragraph(label), page.score_table(bars, 'Protocol and features',
                                                          'Accuracy, %'), scores_table(lines)]
    return page.section('Results', *parts, page.paragraph(
        'Means in %, ± standard deviation over seeds where there are several; in brackets the '
        '95 % bootstrap interval over test tiles (over patients where their ids are known). '
        'Calibration error: lower is better. Colour baselines see no shape; random init is the '
        'same network untrained.', 'note'))


def scores_table(lines: Sequence[Summary], names: Sequence[str] | None = None) -> str:
    """Return all scores of summaries in a table that scrolls sideways on a narrow page.

    Args:
        lines: the summaries.
        names: the run that each line comes from, shown in place of the protocol.
    """
    head = ['Protocol' if names is None else 'Run', 'Features']
    columns = list(dict.fromkeys(name for line in lines for name, score in line.scores.items()
                                 if name not in LEFT_OUT and FORM <= score.keys()))
    body = []
    for i, line in enumerate(lines):
        cells = [line.protocol if names is None else names[i],
                 f'{line.features} {diverged(line)}'.strip()]
        numbers = []
        for name in columns:
            score = line.scores.get(name)  # another run may not have that score
            if score is None or not FORM <= score.keys():
                numbers.append('<td class="number">-</td>')
                continue
            ends = f"{percent(score['low'])}–{percent(score['high'])}"
            numbers.append(f'<td class="number">{percent(score["mean"], score["sd"])} '
                           f'<span class="interval">[{ends}]</span></td>')
        style = ('strong' if line.features == 'checkpoint' else '') if line.honest else 'paper'
        body.append(f'<tr class="{style}">' + ''.join(f'<td>{escape(c)}</td>' for c in cells)
                    + ''.join(numbers) + '</tr>')
    return ('<div class="scroll"><table>\n<thead><tr>'
            + ''.join(f'<th>{escape(name)}</th>' for name in head)
            + ''.join(f'<th class="number">{escape(heading(name))}</th>' for name in columns)
            + '</tr></thead>\n<tbody>'
            + '\n'.join(body) + '</tbody></table></div>')


def confusion_matrix(run: Evaluated) -> str:
    """Confusion matrix and recall of each class, of the row that the pictures show."""
    row, classes = main_row(run), run.results.data['classes']
    matrix = np.array(row.confusion)
    share = matrix / matrix.sum(1, keepdims=True).clip(1)
    head = ''.join(f'<th>{escape(name)}</th>' for name in classes)
    body = ''
    for i, name in enumerate(classes):
        cells = ''.join(_matrix_cell(matrix[i, j], share[i, j], i == j)
                        for j in range(len(classes)))
        body += f'<tr><th>{escape(name)}</th>{cells}</tr>\n'
    table = (f'<div class="scroll"><table class="matrix"><thead><tr>'
             f'<th class="corner">true ↓ said →</th>{head}</tr></thead>\n<tbody>{body}</tbody>'
             '</table></div>')
    recalls = [page.Row(name, value) for name, value in zip(classes, row.recall_by_class)
               if value is not None]
    return page.section('What is taken for what', page.paragraph(row_in_words(row), 'note'), table,
                        page.score_table(recalls, 'Class', 'Recall, %'))


def _matrix_cell(count: int, share: float, diagonal: bool) -> str:
    colour = (0, 114, 198) if diagonal else (210, 69, 43)
    mixed = ','.join(str(round(255 + (c - 255) * share)) for c in colour)
    ink = '#fff' if share > 0.55 else '#1b1b1b'
    return (f'<td style="background:rgb({mixed});color:{ink}" title="{share:.1%}">'
            f'{count if count else "·"}</td>')
