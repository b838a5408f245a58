"""Bricks of a report page: plain HTML with one style sheet inside, nothing from outside.

Every function escapes the text it is given and returns finished HTML; only what another of
these functions returned is taken as HTML.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image

STYLE = '''
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1b1b1b;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; line-height: 1.3; margin: 2.75rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid #ddd; }
p { margin: 0 0 .8rem; max-width: 44rem; }
.lead { color: #555; margin-bottom: 1.6rem; overflow-wrap: anywhere; }
.note { color: #555; font-size: .875rem; }
a { color: #0060a8; text-underline-offset: .15em; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr));
  gap: 1rem 1.5rem; margin: 0; }
dt { color: #555; font-size: .8125rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; margin: .2rem 0 .8rem; font-size: .9375rem; }
th { text-align: left; font-weight: 600; font-size: .8125rem; color: #555; }
th, td { padding: .4rem .9rem .4rem 0; border-bottom: 1px solid #e6e6e6; vertical-align: top;
  overflow-wrap: anywhere; }
th:last-child, td:last-child { padding-right: 0; }
td:first-child { min-width: 9.4rem; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
tr.strong td { font-weight: 700; }
.bar { width: 34%; vertical-align: middle; }
.bar span { display: block; height: .6rem; border-radius: .15rem; background: #b9c4cd; }
tr.strong .bar span { background: #0072c6; }
figure { margin: 0 0 1.4rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: #555; font-size: .875rem; margin-top: .4rem; max-width: 44rem; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; font-size: .84375rem; }
pre { margin: .2rem 0 1.1rem; padding: .7rem .9rem; background: #f5f6f7; border-radius: .3rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.step { margin-bottom: 0; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 0 1.5rem; }
@media (max-width: 36rem) {
  main { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.4rem; }
  dl { grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); }
  .bar { width: 22%; }
}
'''


class Row(NamedTuple):
    """One row of :func:`score_table`.

    Attributes:
        name: what was scored.
        score: in [0, 1], or None.
        sd: its spread over seeds, or None.
        strong: whether it is printed bold.
        interval: the ends of its 95 % interval, or None.
    """

    name: str
    score: float | None
    sd: float | None = None
    strong: bool = False
    interval: tuple[float, float] | None = None


def page(title: str, body: Sequence[str], style: str = '') -> str:
    """Return a whole document: its title and the HTML of its sections, one after another.

    Args:
        title: of the document.
        body: HTML of the sections.
        style: CSS that is added to the style sheet.
    """
    return ('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n'
            + '\n'.join(part for part in body if part) + '\n</main>\n</body>\n</html>\n')


def heading(title: str, lead: str) -> str:
    """Return the head of a page: its title and a line under it."""
    return f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n</header>'


def section(title: str, *parts: str) -> str:
    """Return a section of HTML parts under a title, or '' if all parts are empty."""
    inside = '\n'.join(part for part in parts if part)
    return f'<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>' if inside else ''


def paragraph(text: str, style: str | None = None) -> str:
    """Return a paragraph of plain text; ``style`` is a class of the style sheet."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f'<p>{escape(text)}</p>'


def remarks(texts: Sequence[str], *more: str) -> str:
    """Return the section of what must be known beside numbers; ``more`` is HTML.

    Args:
        texts: sentences; those that start with 'WARNING: ' stand out.
        more: what follows them.
    """
    said = []
    for note in texts:
        text = note.removeprefix('WARNING: ')
        said.append(paragraph(text[0].upper() + text[1:], 'warning' if text != note else None))
    return section('Read this with the numbers', *said, *more)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return short facts beside each other, the name of each above its value."""
    items = ''.join(f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>\n'
                    for name, value in pairs)
    return f'<dl>\n{items}</dl>' if items else ''


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 1) -> str:
    """Return a table of cells that are HTML already; its last columns hold ``numbers``."""
    def line(tag: str, cells: Sequence[str]) -> str:
        words, figures = cells[:-numbers], cells[-numbers:]
        return ('<tr>' + ''.join(f'<{tag}>{cell}</{tag}>' for cell in words)
                + ''.join(f'<{tag} class="number">{cell}</{tag}>' for cell in figures)
                + '</tr>\n')
    if not rows:
        return ''
    return (f'<table>\n<thead>{line("th", [escape(name) for name in header])}</thead>\n<tbody>\n'
            + ''.join(line('td', row) for row in rows) + '</tbody>\n</table>')


def score_table(rows: Sequence[Row], name: str, score: str) -> str:
    """Return a table of scores as percentages with a bar for each.

    Args:
        rows: what to compare.
        name: heading of the first column.
        score: heading of the second column.
    """
    lines = []
    for row in rows:
        number = '-' if row.score is None else f'{100 * row.score:.1f}' + (
            f' ± {100 * row.sd:.1f}' if row.sd is not None else '')
        if row.interval is not None:
            number += ' ({:.0f}–{:.0f})'.format(*(100 * end for end in row.interval))
        width = 100 * min(max(row.score or 0.0, 0.0), 1.0)
        strong = ' class="strong"' if row.strong else ''
        lines.append(f'<tr{strong}><td>{escape(row.name)}</td>'
                     f'<td class="number">{number}</td>'
                     f'<td class="bar"><span style="width:{width:.1f}%"></span></td></tr>\n')
    if not lines:
        return ''
    return (f'<table>\n<thead><tr><th>{escape(name)}</th><th class="number">{escape(score)}</th>'
            '<th></th></tr></thead>\n<tbody>\n' + ''.join(lines) + '</tbody>\n</table>')


def link(path: str, text: str | None = None) -> str:
    """Return a link to a file beside the page, by its relative path."""
    return f'<a href="{quote(path)}"><code>{escape(text or path)}</code></a>'


def picture(folder: Path, name: str, caption: str) -> str:
    """Return a picture that lies beside the page, or '' if it does not exist.

    Args:
        folder: the folder of the page.
        name: of the picture, relative to the folder.
        caption: the text under it.
    """
    if not (folder / name).is_file():
        return ''
    with Image.open(folder / name) as image:
        width, height = image.size
    return (f'<figure>\n<a href="{quote(name)}"><img src="{quote(name)}" width="{width}" '
            f'height="{height}" alt="{escape(caption)}"></a>\n'
            f'<figcaption>{escape(caption)} <a href="{quote(name)}">Full size</a></figcaption>\n'
            '</figure>')


def beside(*parts: str) -> str:
    """Return pieces of HTML beside each other, or below each other where the page is narrow."""
    inside = ''.join(f'<div>{part}</div>\n' for part in parts if part)
    return f'<div class="beside">\n{inside}</div>' if inside else ''


def command(what: str, line: str) -> str:
    """Return a command line under a sentence that says what it does."""
    return f'<p class="step">{escape(what)}</p>\n<pre>{escape(line)}</pre>'
