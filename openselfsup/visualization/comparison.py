"""Several evaluations on one page: the same protocol and labelled share beside each other."""

from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..evaluation.ownership import other_settings
from ..evaluation.results import Results, Summary, read_results
from ..evaluation.table import diverged, heading, leading
from ..files import write_text
from . import page
from .report import FLATTERS
from .report_style import STYLE
from .report_tables import scores_table

TITLE = 'Comparison of evaluations'
# What was asked for that a table shows, or that belongs to a network as its weights do.
OF_THE_NETWORK = ('protocols', 'fractions', 'baselines', 'paper_compat', 'imagenet', 'model_name',
                  'normalize', 'resizing')


def write_comparison(runs: Mapping[str, str | Path], out: str | Path) -> Path:
    """Write a page that compares evaluations and return its path.

    Rows of one table differ in nothing but the features: protocol, labelled share and test
    tiles are the same. Baselines are shown once where all runs agree on them.

    Args:
        runs: names of the runs and the folders of their evaluations.
        out: the HTML file to write.

    Raises:
        UserError: a folder holds no results, fewer than two are given, or ``out`` is a file that
            is no such page.
    """
    refuse_other_file(Path(out))
    if len(runs) < 2:
        raise UserError('there is nothing to compare', expected='at least two runs')
    found = {name: read_results(path) for name, path in runs.items()}
    parts = [page.heading(TITLE, ', '.join(runs)),
             page.section('What was evaluated', _models(found)), _warning(found)]
    for protocol, fraction in _tables(found):
        lines = [(name, line) for name, results in found.items() for line in results.summary
                 if (line.protocol, line.fraction) == (protocol, fraction)]
        lines = _without_repeats(lines)
        shown = leading(lines[0][1])
        lines.sort(key=lambda item: -(item[1].scores[shown]['mean'] or 0))
        bars = [page.Row(f'{_label(name, line)} {diverged(line)}'.strip(),
                         line.scores[shown]['mean'], line.scores[shown]['sd'],
                         line.features == 'checkpoint' and line.honest)
                for name, line in lines]
        parts.append(page.section(
            f'{protocol}, {100 * fraction:g} % labelled',
            page.score_table(bars, 'Features', f'{heading(shown)}, %'),
            scores_table([line for _, line in lines], [name for name, _ in lines]),
            '' if all(line.honest for _, line in lines) else page.paragraph(FLATTERS, 'warning')))
    document = page.page(TITLE, parts, STYLE)
    write_text(out, document, 'backslashreplace')
    return Path(out)


def refuse_other_file(out: Path) -> None:
    """Refuse to replace a file that is no comparison; those can be drawn again at any time."""
    if out.is_file():
        with open(out, 'rb') as file:
            if f'<title>{TITLE}</title>'.encode() not in file.read(1000):
                raise UserError('this file is no comparison of evaluations', where=str(out),
                                expected='another --out, or this file removed')


def _models(found: Mapping[str, Results]) -> str:
    rows = [(page.escape(name), page.escape(Path(r.model['path']).name or 'baselines only'),
             page.escape(f"{r.data['train']['tiles']:,} / {r.data['test']['tiles']:,}"),
             page.escape(r.created[:10])) for name, r in found.items()]
    table = page.table(('Run', 'Checkpoint', 'Training / test tiles', 'When'), rows)
    return f'<div class="scroll">{table}</div>'


def _warning(found: Mapping[str, Results]) -> str:
    """Say where runs did not have the same tiles, and what warnings stand in their results."""
    first, *others = ((r.data['classes'], r.data['test']['by_class'], r.data.get('digest'))
                      for r in found.values())
    said = [f"{name}: {note.removeprefix('WARNING: ')}" for name, results in found.items()
            for note in results.notes if note.startswith('WARNING: ')]
    (name, one), *rest = found.items()
    for other, results in rest:
        if one.request and results.request and (differing := other_settings(
                one.request, results.request, '{key} {old} and {new}', OF_THE_NETWORK)):
            said.insert(0, f'{name} and {other} were evaluated differently: '
                           f'{"; ".join(differing)}.')
    if any(other != first for other in others):
        said.insert(0, 'The runs were trained or tested on different tiles: their numbers cannot '
                       'be compared.')
    return page.section('Read this with the numbers',
                        *(page.paragraph(text, 'warning') for text in said))


def _tables(found: Mapping[str, Results]) -> list[tuple[str, float]]:
    """Return protocols and labelled shares in the order in which runs list them."""
    return list(dict.fromkeys((line.protocol, line.fraction) for results in found.values()
                              for line in results.summary))


def _without_repeats(lines: list[tuple[str, Summary]]) -> list[tuple[str, Summary]]:
    """Keep one line of a baseline on which several runs agree."""
    kept: list[tuple[str, Summary]] = []
    for name, line in lines:
        same = line.features != 'checkpoint' and any(
            (other.features, other.scores) == (line.features, line.scores) for _, other in kept)
        if not same:
            kept.append((name, line))
    return kept


def _label(name: str, line: Summary) -> str:
    return name if line.features == 'checkpoint' else f'{line.features} ({name})'
