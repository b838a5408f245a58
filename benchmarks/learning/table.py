"""The tables of the study: JSON with everything, Markdown and a page for people."""

import dataclasses
import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path

from openselfsup.evaluation.comparison import Estimate
from openselfsup.files import write_text
from openselfsup.visualization import page

from .pretraining import Budget

#: By question, by name: the score under '' and differences from others under their names.
Found = Mapping[str, Mapping[str, Mapping[str, Estimate]]]


def write(folder: Path, found: Found, baselines: list[str], budget: Budget) -> None:
    """Write results.json, tables.md and index.html."""
    plain = {question: {name: {other: _plain(one) for other, one in row.items()}
                        for name, row in by_name.items()} for question, by_name in found.items()}
    write_text(folder / 'results.json', json.dumps(
        dict(budget=str(budget), estimates=plain), indent=1) + '\n')
    lead = (f'Budget of each run: {budget}. Scores in points, 95 % intervals over cases in '
            'brackets; a difference is bold where its interval leaves out 0.')
    lines, body = [lead, ''], [page.heading('Does it learn?', lead)]
    for question, by_name in found.items():
        heading = ['', 'score', *(f'less {name}' for name in baselines if name in by_name)]
        rows = [[name, _score(row['']), *(_difference(row.get(other)) for other in baselines
                                          if other in by_name)]
                for name, row in by_name.items()]
        lines += [f'## {question}', '', _line(heading), _line(['---'] * len(heading)),
                  *map(_line, rows), '']
        body.append(page.section(question, page.table(heading, [
            [_html(cell) for cell in row] for row in rows])))
    write_text(folder / 'tables.md', '\n'.join(lines))
    write_text(folder / 'index.html',
               page.page('Does it learn?', body, 'main { max-width: 76rem; }'))


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


def _line(cells: list[str]) -> str:
    return '| ' + ' | '.join(cells) + ' |'
