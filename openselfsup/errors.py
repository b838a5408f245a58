"""The one exception that a user's mistake raises."""

import difflib
import os
import re
from collections.abc import Iterable

_SHOWN = 10  # problems of one kind that a message lists


class UserError(Exception):
    """Something the user can mend: a path, a config key, a checkpoint, a tile.

    The tools print it as one sentence without a traceback and leave with status 2.

    Args:
        what: what was wrong, in one sentence without a full stop.
        where: file, config key path or command-line flag that caused it.
        expected: what would have been accepted.
        nearest: the closest valid choice, if one comes close.

    Attributes:
        part: the dict with a ``type`` that was being built, set by the registry.
    """

    part: dict | None = None

    def __init__(self, what: str, *, where: str | None = None, expected: str | None = None,
                 nearest: str | None = None):
        self.what, self.where, self.expected, self.nearest = what, where, expected, nearest
        text = f'{where}: {what}' if where else what
        if expected:
            text += f'; expected {expected}'
        if nearest:
            text += f"; did you mean '{nearest}'?"
        super().__init__(shown(text))


def located(path: object) -> str:
    """Return a path as a message shows it: a relative one with the folder that it starts from."""
    path = str(path)
    return path if os.path.isabs(path) else f'{path} (from {os.getcwd()})'


def shown(text: object) -> str:
    r"""Return a text that can be written anywhere.

    Names of files need not be UTF-8; Python keeps their other bytes as lone surrogates, which no
    file and no terminal takes. They are shown as ``\xe9``.
    """
    text = re.sub('[\udc80-\udcff]', lambda found: f'\\x{ord(found[0]) - 0xdc00:02x}', str(text))
    return text.encode('utf-8', 'backslashreplace').decode('utf-8')


def nearest(word: str, choices: Iterable[str], cutoff: float = 0.55) -> str | None:
    """Return the choice that looks most like ``word``, or None if none comes close.

    Args:
        word: what was written.
        choices: what may stand there.
        cutoff: how much alike they must be, from 0 (not at all) to 1 (the same).
    """
    by_lower = {str(choice).lower(): str(choice) for choice in choices}
    found = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def listed(what: str, problems: Iterable[object]) -> str:
    """Return ``what`` followed by the first ten problems, a line each."""
    lines = [str(problem) for problem in problems]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f'... and {len(lines) - _SHOWN} more']
    return f'{what}:\n  ' + '\n  '.join(lines)
