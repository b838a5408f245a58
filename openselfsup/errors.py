"""The one exception that a user's mistake raises."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: a path, a config key, a checkpoint, a tile.

    The tools print it as one sentence without a traceback and leave with status 2.

    Args:
        what: what was wrong, in one sentence without a full stop.
        where: file, config key path or command-line flag that caused it.
        expected: what would have been accepted.
        nearest: the closest valid choice, if one comes close.
    """

    def __init__(self, what: str, *, where: str | None = None, expected: str | None = None,
                 nearest: str | None = None):
        self.what, self.where, self.expected, self.nearest = what, where, expected, nearest
        text = f'{where}: {what}' if where else what
        if expected:
            text += f'; expected {expected}'
        if nearest:
            text += f"; did you mean '{nearest}'?"
        super().__init__(text)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that looks most like ``word``, or None if none comes close."""
    by_lower = {str(choice).lower(): str(choice) for choice in choices}
    found = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.55)
    return by_lower[found[0]] if found else None
