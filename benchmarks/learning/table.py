"""The tables of the study: JSON with everything, Markdown and a page for people."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from openselfsup.evaluation.comparison import Estimate
from openselfsup.files import write_json, write_text
from openselfsup.visualization import page

#: By question, by name: the score under '' and differences from others under their names.
Found = Mapping[str, Mapping[str, Mapping[str, Estimate]]]

TITLE = 'Does it learn?'
READING = ('Scores in points: mean over the seeds ± their deviation; in brackets the 95 % interval '
           'over cases (GlaS: images). Differences are of the same redrawn cases; bold ones have '
           'intervals without 0. Where nothing differs, one in twenty is bold by chance.')


def write(folder: Path, found: Found, baselines: list[str], study: Mapping[str, Any]) -> None:
    """Write results.json, tables.md and index.html: numbers alone, so that they can be published.

    Args:
        folder: where to.
        found: what was estimated.
        baselines: names that everything is compared with; all others are methods, which are
            compared with each other, too.
        study: what a reader must know of the study, by name.
    """
    plain = {question: {name: {other: _plain(one) for other, one in row.items()}
                        for name, row in by_name.items()} for question, by_name in found.items()}
    write_json(folder / 'results.json', dict(study, estimates=plain), indent=1)
    lead = [', '.join(f'{name}: {value}' for name, value in study.items()) + '.', READING]
    lines = [f'# {TITLE}', '', lead[0], '', lead[1], '']
    body = [page.heading(TITLE, lead[0]), page.paragraph(READING)]
    for question, by_name in found.items():
        tables = {'': _scores(by_name, [name for name in baselines if name in by_name])}
        methods = [name for name in by_name if name not in baselines]
        if len(methods) > 1:
            tables['Row less column'] = _differences(by_name, methods)
        lines += [f'## {question}', '']
        for title, (heading, *rows) in tables.items():
            lines += [*([f'{title}:', ''] if title else []), *table_of(heading, rows), '']
        body.append(page.section(question, *(
            (page.paragraph(f'{title}:') if title else '') + page.table(
                heading, [[_html(cell) for cell in row] for row in rows])
            for title, (heading, *rows) in tables.items())))
    write_text(folder / 'tables.md', '\n'.join(lines))
    write_text(folder / 'index.html', page.page(TITLE, body, 'main { max-width: 76rem; }'))


def table_of(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines of Markdown."""
    return ['| ' + ' | '.join(cells) + ' |'
            for cells in (heading, ['---'] * len(heading), *rows)]


def _scores(by_name: Mapping[str, Mapping[str, Estimate]], baselines: list[str]
            ) -> list[list[str]]:
    """Return the score of each name and its differences from baselines, the heading first."""
    return [['', 'score', *(f'less {name}' for name in baselines)],
            *([name, _score(row['']), *(_difference(row.get(other)) for other in baselines)]
              for name, row in by_name.items())]


def _differences(by_name: Mapping[str, Mapping[str, Estimate]], methods: list[str]
                 ) -> list[list[str]]:
    """Return the difference of every method (row) from every other (column)."""
    return [['', *methods], *([name, *(_difference(by_name[name].get(other)) for other in methods)]
                              for name in methods)]


def _plain(one: Estimate) -> dict[str, float | None]:
    return {key: round(value, 5) if math.isfinite(value) else None
            for key, value in dataclasses.asdict(one).items()}


def _score(one: Estimate) -> str:
    spread = f' ± {100 * one.sd:.1f}' if math.isfinite(one.sd) else ''
    return f'{100 * one.value:.1f}{spread} ({100 * one.low:.1f} to {100 * one.high:.1f})'


def _difference(one: Estimate | None) -> str:
    """Return a difference in points; bold where its interval leaves out 0."""
    if one is None:
        return ''
    text = f'{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})'
    return f'**{text}**' if one.above or one.below else text


def _html(cell: str) -> str:
    text = escape(cell.strip('*'))
    return f'<b>{text}</b>' if cell.startswith('**') else text
