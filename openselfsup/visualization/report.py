"""report.html: one evaluation on one page that needs no other file.

It is drawn from ``results.json`` and ``arrays.npz`` in the folder of the evaluation; tiles are
read where they lay then.
"""

import tempfile
from html import escape
from pathlib import Path

from ..evaluation.results import Row
from ..files import write_text
from . import page
from .curves import plot_curves
from .evaluated import Evaluated, read_evaluation
from .report_figures import history_figure, inline_figure, inline_png
from .report_style import STYLE
from .report_tables import confusion_matrix, tables
from .report_tiles import maps, mistakes, neighbours

REPORT = 'report.html'
FLATTERS = ('Rows called paper-compat repeat the published protocol: tiles drawn with replacement, '
            'moving BatchNorm statistics, and in linear evaluation the epoch that is best on the '
            'test. They flatter and are no measure of the features.')


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
    write_text(out, document, 'backslashreplace')
    return out


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


def notes(run: Evaluated) -> str:
    """What a reader must know beside the numbers."""
    flatters = any(not row.honest for row in run.results.rows)
    return page.remarks(run.results.notes,
                        page.paragraph(FLATTERS, 'warning') if flatters else '')


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
