"""A translated config as a file: ours, with a comment at each line that is not one to one."""

import ast
import os
import textwrap
from collections import defaultdict
from pathlib import Path

from ..engine.config_files import descend
from ..engine.config_text import WIDTH, fields_text
from .configs import Translation
from .fields import Note


def translated_text(found: Translation, path: Path) -> str:
    """Return the text of a config of ours.

    Args:
        found: the translation.
        path: the published config, for the first line.
    """
    lines = fields_text(found.fields).splitlines()
    above: dict[int, list[Note]] = defaultdict(list)
    for note in found.notes:
        if note.ours:
            above[_line_of(note.ours, lines)].append(note)
    text = [f'# {os.fspath(path)}, translated from the published dialect.']
    for note in found.notes:
        if not note.ours:
            text += _comment(note, 0)
    for number, line in enumerate(lines, 1):
        for note in above[number]:
            text += _comment(note, len(line) - len(line.lstrip()))
        text.append(line)
    return '\n'.join(text) + '\n'


def _line_of(path: tuple[str, ...], lines: list[str]) -> int:
    """Return the line of the deepest part of a key path that stands in a config, from 1."""
    for node in ast.parse('\n'.join(lines)).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) == path[0]:
            return descend(node.value, path[1:], node.lineno)[1]
    return 1


def _comment(note: Note, indent: int) -> list[str]:
    start = ' ' * indent + '# '
    return textwrap.wrap(str(note), WIDTH, initial_indent=start, subsequent_indent=start + '  ',
                         break_long_words=False, break_on_hyphens=False)
