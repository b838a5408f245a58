"""report.html: one evaluation on one page that needs no other file.

It is drawn from ``results.json`` and ``arrays.npz`` in the folder of the evaluation; tiles are
read where they lay then.
"""

import tempfile
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from ..evaluation.results import Results, Row, Summary, read_results
from ..evaluation.table import diverged, heading, percent
from ..files import atomic_file
from . import page
from .curves import plot_curves
from .report_figures import (
    feature_maps,
    has_umap,
    history_figure,
    inline_figure,
    inline_png,
    thumbnail,
)
from .report_style import STYLE

REPORT = 'report.html'
ARRAYS = 'arrays.npz'
COLUMNS = ('accuracy', 'balanced_accuracy', 'macro_f1', 'auroc', 'calibration_error')
NEIGHBOUR_ROWS, MISTAKES = 12, 12
FLATTERS = ('Rows called paper-compat repeat the published protocol: tiles drawn with replacement, '
            'moving BatchNorm statistics, and in linear evaluation the epoch that is best on the '
            'test. They flatter and are no measure of the features.')


class Evaluated(NamedTuple):
    """What the sections draw on: the folder, the results, and the arrays (None if missing)."""

    folder: Path
    results: Results
    arrays: dict[str, np.ndarray] | None
    work_dir: Path | None = None


def write_report(folder: str | Path, work_dir: str | Path | None = None) -> Path:
    """Write ``report.html`` into the folder of an evaluation and return its path.

    Args:
        folder: holds ``results.json`` and ``arrays.npz``.
        work_dir: work directory of the pretraining, whose curves are added.

    Raises:
        UserError: there are no results, or no metrics in ``work_dir``.
    """
    run = read_evaluation(folder, work_dir)
    name = Path(run.results.model['path']).name or 'baselines'
    sections = (title, facts, tables, notes, confusion_matrix, neighbours, mistakes, maps,
                training, curves, definitions)
    document = page.page(f'Evaluation of {name}', [section(run) for section in sections], STYLE)
    out = run.folder / REPORT
    with atomic_file(out) as file:
        file.write(document.encode('utf-8', 'backslashreplace'))
    return out


def read_evaluation(folder: str | Path, work_dir: str | Path | None = None) -> Evaluated:
    """Read the results and arrays of an evaluation."""
    folder = Path(folder)
    results, arrays = read_results(folder), None
    if (folder / ARRAYS).is_file():
        arrays = _read_arrays(folder / ARRAYS)
        if str(arrays.get('created', results.created)) != results.created:
            arrays = None  # of an earlier evaluation; this one has not finished
    return Evaluated(folder, results, arrays, None if work_dir is None else Path(work_dir))


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as saved:
            return {name: saved[name] for name in saved.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise UserError('this file is damaged', where=str(path),
                        expected='that of the evaluation, or none: then the report has no pictures'
                        ) from None


def title(run: Evaluated) -> str:
    """What was evaluated."""
    model = run.results.model
    name = Path(model['path']).name or 'the baselines'
    return page.heading(f'Evaluation of {name}', f"{model['name']}, {model['tensors']}")


def facts(run: Evaluated) -> str:
    """Tiles, classes, seeds."""
    data, rows = run.results.data, run.results.rows
    fractions = sorted({row.fraction for row in rows})
    patients = data['test']['patients']
    return page.facts([
        ('Training tiles', f"{data['train']['tiles']:,}"),
        ('Test tiles', f"{data['test']['tiles']:,}"), ('Classes', str(len(data['classes']))),
        ('Labelled share', ', '.join(f'{100 * f:g} %' for f in fractions)),
        ('Seeds', ', '.join(str(s) for s in sorted({row.seed for row in rows}))),
        ('Test patients', f'{patients:,}' if patients else 'unknown'),
        ('Device', run.results.environment['device']),
        ('When', run.results.created.replace('T', ' ')[:16])])


def tables(run: Evaluated) -> str:
    """Accuracy as bars, then every score with its spread and interval, per labelled share."""
    parts = []
    for fraction in sorted({line.fraction for line in run.results.summary}):
        lines = [line for line in run.results.summary if line.fraction == fraction]
        bars = [page.Row(f'{line.protocol}: {line.features} {diverged(line)}'.strip(),
                         line.scores['accuracy']['mean'], line.scores['accuracy']['sd'],
                         line.features == 'checkpoint' and line.honest)
                for line in lines]
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
    body = []
    for i, line in enumerate(lines):
        cells = [line.protocol if names is None else names[i],
                 f'{line.features} {diverged(line)}'.strip()]
        numbers = []
        for name in COLUMNS:
            score = line.scores[name]
            ends = f"{percent(score['low'])}–{percent(score['high'])}"
            numbers.append(f'<td class="number">{percent(score["mean"], score["sd"])} '
                           f'<span class="interval">[{ends}]</span></td>')
        style = ('strong' if line.features == 'checkpoint' else '') if line.honest else 'paper'
        body.append(f'<tr class="{style}">' + ''.join(f'<td>{escape(c)}</td>' for c in cells)
                    + ''.join(numbers) + '</tr>')
    return ('<div class="scroll"><table>\n<thead><tr>'
            + ''.join(f'<th>{escape(name)}</th>' for name in head)
            + ''.join(f'<th class="number">{heading(name)}</th>' for name in COLUMNS)
            + '</tr></thead>\n<tbody>'
            + '\n'.join(body) + '</tbody></table></div>')


def notes(run: Evaluated) -> str:
    """What a reader must know beside the numbers."""
    said = []
    for note in run.results.notes:
        text = note.removeprefix('WARNING: ')
        said.append(page.paragraph(text[0].upper() + text[1:],
                                   'warning' if text != note else None))
    if any(not row.honest for row in run.results.rows):
        said.append(page.paragraph(FLATTERS, 'warning'))
    return page.section('Read this with the numbers', *said)


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
    return page.section('What is taken for what', page.paragraph(_which(row), 'note'), table,
                        page.score_table(recalls, 'Class', 'Recall, %'))


def neighbours(run: Evaluated) -> str:
    """Test tiles and the training tiles most similar to them."""
    if run.arrays is None:
        return ''
    arrays, classes = run.arrays, run.results.data['classes']
    strips = []
    for i in _spread_over_classes(arrays['labels'], NEIGHBOUR_ROWS):
        label = int(arrays['labels'][i])
        cells = [f'<div class="query">{thumbnail(str(arrays["test_paths"][i]), classes[label])}'
                 f'<b>{escape(classes[label])}</b></div>']
        for j in arrays['neighbours'][i]:
            other = int(arrays['neighbour_labels'][j])
            same = other == label
            image = thumbnail(str(arrays['neighbour_paths'][j]), classes[other],
                              'same' if same else 'other')
            mark = '✓' if same else '✗'
            cells.append(f'<div>{image}{mark} {escape(classes[other])}</div>')
        strips.append(f'<div class="strip">{"".join(cells)}</div>')
    return page.section('Nearest neighbours', page.paragraph(
        'Left a test tile, then the labelled training tiles that the features hold most alike '
        '(cosine). Dashed: another class.', 'note'), *strips)


def mistakes(run: Evaluated) -> str:
    """The test tiles that were classified wrongly with the greatest certainty."""
    if run.arrays is None:
        return ''
    arrays, classes = run.arrays, run.results.data['classes']
    said = arrays['probabilities'].argmax(1)
    certainty = np.where(said != arrays['labels'], arrays['probabilities'].max(1), -1)
    order = [int(i) for i in np.argsort(-certainty)[:MISTAKES] if certainty[i] >= 0]
    if not order:
        return page.section('Worst mistakes', page.paragraph('Not one test tile is wrong.'))
    cards = []
    for i in order:
        truth, wrong = classes[int(arrays['labels'][i])], classes[int(said[i])]
        cards.append(f'<div class="card">{thumbnail(str(arrays["test_paths"][i]), truth)}'
                     f'<b>{escape(truth)}</b> taken for <b>{escape(wrong)}</b>, '
                     f'{certainty[i]:.0%} sure</div>')
    return page.section('Worst mistakes', page.paragraph(_which(main_row(run)), 'note'),
                        f'<div class="cards">{"".join(cards)}</div>')


def maps(run: Evaluated) -> str:
    """PCA, t-SNE and, where installed, UMAP of the test features."""
    if run.arrays is None:
        return ''
    figures = feature_maps(run.arrays['features'], run.arrays['labels'],
                           run.results.data['classes'])
    if not figures:
        return ''
    inside = '\n'.join(figures)
    return page.section(
        'The test tiles as the features see them', f'<div class="maps">{inside}</div>',
        '' if has_umap() else page.paragraph(
            'There is no UMAP here because umap-learn is not installed: '
            'pip install umap-learn, then run `openselfsup report` on this folder.', 'note'))


def training(run: Evaluated) -> str:
    """Curves of the protocols that train on tiles, first seed, most labels."""
    rows = [row for row in run.results.rows if len(row.history) > 1]
    if not rows:
        return ''
    most, seed = max(row.fraction for row in rows), rows[0].seed
    shown = {row.protocol: row.history for row in rows if (row.fraction, row.seed) == (most, seed)}
    figures = [inline_figure(history_figure(shown, key), caption) for key, caption in (
        ('loss', f'Training loss; {100 * most:g} % labelled, seed {seed}.'),
        ('accuracy', 'Accuracy on the tiles that chose the epoch.'))]
    return page.section('How fine-tuning and linear evaluation went',
                        f'<div class="maps">{"".join(figures)}</div>')


def curves(run: Evaluated) -> str:
    """Curves of the pretraining, where its work directory is given."""
    if run.work_dir is None:
        return ''
    with tempfile.TemporaryDirectory() as scratch:
        data = plot_curves({run.work_dir.name: run.work_dir},
                           Path(scratch) / 'curves.png').read_bytes()
    return page.section('How the pretraining went', inline_png(
        data, f'Everything that {run.work_dir} logged, over the optimiser steps.'))


def definitions(run: Evaluated) -> str:
    """Every protocol with all its settings, so that the numbers can be had again."""
    seen: dict[str, Row] = {}
    for row in run.results.rows:
        seen.setdefault(row.protocol, row)
    parts = []
    for name, row in seen.items():
        lines = [f'{key} = {value}' for key, value in row.settings.items()]
        parts.append(f'<p class="step"><b>{escape(name)}</b></p>\n'
                     f'<pre class="settings">{escape(chr(10).join(lines))}</pre>')
    versions = ', '.join(f'{k} {v}' for k, v in run.results.environment.items())
    return page.section('Protocols', *parts, page.paragraph(versions, 'note'))


def main_row(run: Evaluated) -> Row:
    """Return the row that matrix and pictures show."""
    if run.arrays is not None:
        return run.results.rows[int(run.arrays['main_row'])]
    if not run.results.rows:
        raise UserError('the results hold no rows', where=str(run.folder))
    return next((row for row in run.results.rows if row.diverged is None), run.results.rows[0])


def _which(row: Row) -> str:
    return (f'{row.protocol} on the features of {row.features}, '
            f'{100 * row.fraction:g} % labelled, seed {row.seed}.')


def _matrix_cell(count: int, share: float, diagonal: bool) -> str:
    colour = (0, 114, 198) if diagonal else (210, 69, 43)
    mixed = ','.join(str(round(255 + (c - 255) * share)) for c in colour)
    ink = '#fff' if share > 0.55 else '#1b1b1b'
    return (f'<td style="background:rgb({mixed});color:{ink}" title="{share:.1%}">'
            f'{count if count else "·"}</td>')


def _spread_over_classes(labels: np.ndarray, count: int) -> list[int]:
    """Return tiles of every class in turn, the first ones of each."""
    own = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    rounds = max(1, count // len(own))
    return [int(tiles[i]) for tiles in own for i in range(min(rounds, len(tiles)))][:max(
        count, len(own))]
