"""The page that explains a run: ``index.html`` in its work directory."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..files import write_text
from . import page
from .page import Row


class Run(NamedTuple):
    """What a section may draw on.

    Attributes:
        work_dir: the folder of the run; pictures and files are looked up in it.
        summary: what :func:`write_run_page` was given.
    """

    work_dir: Path
    summary: dict[str, Any]


#: A section turns a run into HTML, or '' where it has nothing to show.
Section = Callable[[Run], str]

FACTS = (('method', 'Method', '{}'), ('tiles', 'Tiles', '{:,}'),
         ('epochs', 'Epochs', '{:,}'), ('steps', 'Optimiser steps', '{:,}'),
         ('minutes', 'Minutes', '{:.1f}'), ('tiles_per_s', 'Tiles per second', '{:.1f}'),
         ('loss_start', 'Loss at the start', '{:.3f}'), ('loss_end', 'Loss at the end', '{:.3f}'),
         ('device', 'Device', '{}'), ('seed', 'Seed', '{}'))

PICTURES = (
    ('views.png', 'What the model sees',
     'Tiles, where the views lie on them, and the views. The thick tick marks the upper edge of '
     'a view, so flips and turns can be seen.'),
    ('matches.png', 'What is matched with what',
     'Cells of two views that show the same place. Grey cells overlap nothing and carry no '
     'weight; lines lead from a few cells to those they are matched with, the thicker the '
     'larger their share.'),
    ('curves.png', 'How it went', 'Everything that was logged, over the optimiser steps.'),
)

NEIGHBOURS = (
    ('neighbours_before.png', 'Before training: the tiles that are most similar by features.'),
    ('neighbours_after.png', 'After training: the same queries among the same tiles.'))
DENSE = (
    ('components.png', 'What it tells apart within tissue',
     'Cells of one colour have features that are alike. Each row has its own colours: compare '
     'where they change, not what they are.'),
    ('likes.png', 'Where a place finds its like',
     'One place is marked in the first tile; all tiles show how similar their cells are to it. '
     'The last row is better where the place finds its kind, not merely its brightness.'),
)

FILES = (('config.py', 'the config that ran, with everything filled in'),
         ('environment.*', 'versions, devices, state of the repository'),
         ('train.log', 'what the console said'),
         ('metrics.jsonl', 'one line of numbers a logging step'),
         ('summary.json', 'the numbers of this page'),
         ('backbone*.pth', 'the backbone alone, with the names of torchvision'),
         ('latest.pth', 'everything needed to resume'),
         ('epoch_*.pth', 'checkpoint at the end of an epoch'),
         ('**/events.out.tfevents*', 'the same curves for TensorBoard'))


def title(run: Run) -> str:
    """What ran, in one line."""
    config = run.summary.get('config')
    lead = f'Pretrained with {config}' if config else f'Work directory {run.work_dir.name}'
    return page.heading(run.summary.get('title', run.work_dir.resolve().name), lead)


def what_ran(run: Run) -> str:
    """The facts of the run beside each other."""
    known = [(name, form.format(run.summary[key])) for key, name, form in FACTS
             if run.summary.get(key) is not None]
    more = [(name, str(value)) for name, value in run.summary.get('facts', {}).items()]
    return page.facts(known + more)


def look_alikes(run: Run) -> str:
    """Nearest neighbours of a few tiles before and after, beside each other."""
    found = [page.picture(run.work_dir, name, caption) for name, caption in NEIGHBOURS]
    if not any(found):
        return ''
    return page.section('What it takes for similar', page.beside(*found),
                        page.paragraph(run.summary.get('queries', ''), 'note'))


def dense(run: Run) -> str:
    """Features of cells: components as colours, places that are alike."""
    return _titled(run, DENSE)


def neighbours(run: Run) -> str:
    """Accuracy of nearest neighbours before and after, beside the baselines."""
    knn = run.summary.get('knn')
    if not knn:
        return ''
    return page.section('What the features are worth',
                        page.score_table(_rows(knn), 'Features', 'kNN accuracy, %'),
                        *(page.paragraph(said) for said in knn.get('said', ())),
                        page.paragraph(knn.get('protocol', ''), 'note'))


def correspondence(run: Run) -> str:
    """How often a cell finds the cell of another view that shows the same place."""
    found = run.summary.get('correspondence')
    if not found:
        return ''
    rows = [[page.escape(row['name']), *(f'{100 * value:.1f}' for value in row['scores'])]
            for row in found['rows']]
    return page.section('Does a place find itself again?',
                        page.table(('Second view', *found['columns']), rows,
                                   len(found['columns'])),
                        *(page.paragraph(said) for said in found.get('said', ())),
                        page.paragraph(found.get('protocol', ''), 'note'))


def classification(run: Run) -> str:
    """Linear evaluation beside its baselines, with a link to the whole report."""
    scores = run.summary.get('classification')
    if not scores:
        return ''
    return page.section('Classification by a linear probe',
                        page.score_table(_rows(scores), 'Features', 'Accuracy, %'),
                        page.paragraph(scores.get('protocol', ''), 'note'),
                        page.link(scores['report'], 'The whole report of this evaluation'))


def segmentation(run: Run) -> str:
    """Average precision of masks with and without pretraining, and the worst image."""
    scores = run.summary.get('segmentation')
    if not scores:
        return ''
    return page.section('Instance segmentation of glands',
                        page.score_table(_rows(scores), 'Backbone', 'Mask AP, %'),
                        page.paragraph(scores.get('protocol', ''), 'note'),
                        page.picture(run.work_dir, scores['picture'], scores['caption']),
                        page.link(scores['report'], 'All images and scores'))


def pictures(run: Run) -> str:
    """The pictures that lie in the work directory, each under its title."""
    return _titled(run, PICTURES)


def files(run: Run) -> str:
    """Which files are where, with links."""
    rows = []
    for pattern, what in (*FILES, *run.summary.get('files', {}).items()):
        found = sorted(run.work_dir.glob(pattern), key=lambda path: path.stat().st_mtime)
        size = sum(file.stat().st_size for path in found
                   for file in (path.iterdir() if path.is_dir() else [path]))
        if found:
            name = found[-1].relative_to(run.work_dir).as_posix()
            several = f' ({len(found)} files like this)' if len(found) > 1 else ''
            rows.append((page.link(name), page.escape(what + several), _size(size)))
    return page.section('Files', page.table(('File', 'What it is', 'Size'), rows))


def next_steps(run: Run) -> str:
    """Command lines to go on with."""
    steps = run.summary.get('commands')
    if steps is None and run.summary.get('config'):
        steps = default_commands(run.summary['config'], run.work_dir)
    return page.section('Go on', *(page.command(step['what'], step['command'])
                                   for step in steps or ()))


#: The sections of the page in their order. A task with results of its own adds its section.
SECTIONS: tuple[Section, ...] = (
    title, what_ran, look_alikes, dense, neighbours, correspondence, classification,
    segmentation, pictures, files, next_steps)


def write_run_page(work_dir: str | Path, summary: dict[str, Any] | None = None,
                   sections: Sequence[Section] = SECTIONS) -> Path:
    """Write ``index.html`` into a work directory; move the folder and it still works.

    Args:
        work_dir: the folder of a run. The pictures of ``NEIGHBOURS``, ``DENSE`` and
            ``PICTURES`` are shown where it has them.
        summary: what is known about the run, default the content of ``summary.json`` in the
            work directory if there is one. All fields are optional: ``title``, ``config``,
            ``method``, ``tiles``, ``epochs``, ``steps``, ``minutes``, ``tiles_per_s``,
            ``loss_start``, ``loss_end``, ``device``, ``seed``; ``facts``: dict of further
            ones; ``knn``: dict with ``rows``, a list of dicts ``name``, ``accuracy`` in
            [0, 1], ``sd``, ``interval`` (two numbers), ``strong`` (printed bold), ``said``,
            sentences under the table, and ``protocol``, a note below them;
            ``correspondence``: dict with ``columns``, names, ``rows``, dicts ``name`` and
            ``scores`` in [0, 1], one a column, ``said`` and ``protocol``; ``queries``: a note
            under the nearest neighbours; ``classification`` and ``segmentation``: dicts like
            ``knn`` with ``report``, the path of a page, and for segmentation ``picture`` and its
            ``caption``;
            ``files``: dict from glob patterns in the work directory to what they are;
            ``commands``: list of dicts ``what`` and ``command``, default those of
            :func:`default_commands`.
        sections: what the page consists of; each gets the :class:`Run` and returns HTML, made
            with the functions of ``visualization.page``.

    Returns:
        The path of the page.

    Raises:
        UserError: there is no such folder, or its ``summary.json`` is not valid JSON.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise UserError('no such work directory', where=str(work_dir))
    run = Run(work_dir, _read_summary(work_dir) if summary is None else summary)
    document = page.page(run.summary.get('title', work_dir.resolve().name),
                         [part(run) for part in sections])
    out = work_dir / 'index.html'
    write_text(out, document, 'backslashreplace')
    return out


def default_commands(config: str, work_dir: str | Path) -> list[dict]:
    """Return command lines to go on with after a pretraining run, each with what it does.

    Args:
        config: path of the config that ran.
        work_dir: where it ran.
    """
    old, new = Path(work_dir), Path(f'{work_dir}_2')

    def step(what: str, *words: str | Path) -> dict:
        return dict(what=what, command=shlex.join(str(word) for word in ('openselfsup', *words)))

    return [
        step('Change one field and run again:', 'train', config, '--work-dir', new,
             '--cfg-options', 'optimizer.lr=5e-4'),
        step('Compare the two runs:', 'analyze', old, new, '--out', 'curves.png'),
        step('Look at what a config shows the model:', 'browse', config, '--out', 'views'),
        step('Extract the backbone for use elsewhere:', 'extract-backbone', old / 'latest.pth',
             old / 'backbone.pth')]


def _titled(run: Run, wanted: Sequence[tuple[str, str, str]]) -> str:
    """Pictures that lie in the work directory, by name, each under its title."""
    return '\n'.join(filter(None, (
        page.section(heading, page.picture(run.work_dir, name, caption))
        for name, heading, caption in wanted)))


def _rows(scores: dict[str, Any]) -> list[Row]:
    return [Row(row['name'], row['accuracy'], row.get('sd'), row.get('strong', False),
                row.get('interval')) for row in scores['rows']]


def _read_summary(work_dir: Path) -> dict[str, Any]:
    path = work_dir / 'summary.json'
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except json.JSONDecodeError as error:
        raise UserError(f'not valid JSON: {error}', where=str(path)) from None


def _size(size: float) -> str:
    for unit in ('B', 'kB', 'MB'):
        if size < 1000:
            return f'{size:.0f} {unit}' if unit == 'B' else f'{size:.1f} {unit}'
        size /= 1000
    return f'{size:.1f} GB'
