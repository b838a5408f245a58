"""Reading the dicts of a published config key by key, so that nothing in them goes unnoticed."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ..engine.config_check import Problem
from ..errors import nearest
from ..values import fault

Kind = Literal['repaired', 'ignored', 'differs', 'kept']
Path = tuple[str, ...]

_REQUIRED: Any = object()


@dataclasses.dataclass(frozen=True)
class Note:
    """What is not one to one.

    Attributes:
        kind: 'repaired' (read otherwise than written), 'ignored' (nothing of it here),
            'differs' (something else happens) or 'kept' (as published, where our own configs do
            otherwise).
        theirs: key path in the published config.
        text: what happens here, or why nothing does.
        ours: key path in our config that it is about; empty for none.
    """

    kind: Kind
    theirs: str
    text: str
    ours: Path = ()

    def __str__(self) -> str:
        return f'{self.theirs}: {self.kind}: {self.text}'


class Stop(Exception):
    """A mistake after which a part of a config cannot be translated further; it is noted."""


@dataclasses.dataclass
class Log:
    """What a translation has to say: notes, and mistakes by their key paths."""

    notes: list[Note] = dataclasses.field(default_factory=list)
    problems: list[Problem] = dataclasses.field(default_factory=list)


class Fields:
    """A dict of a published config whose keys are taken one by one.

    Args:
        values: the dict.
        path: where it stands.
        log: takes what is noted and what is wrong.
    """

    def __init__(self, values: Any, path: Path, log: Log):
        self.path, self.log = path, log
        if not isinstance(values, Mapping):
            raise self.wrong(f"'{path[-1]}' must be a dict, not {values!r}")
        self.left, self.known = dict(values), set[str]()
        #: What messages call the dict.
        self.name = str(values.get('type') or '.'.join(path) or 'this config')

    def take(self, key: str, default: Any = _REQUIRED, kind: Any = Any) -> Any:
        """Return the value of a key, its default if it is not there.

        Args:
            key: the key.
            default: its default; there must be a value without one.
            kind: annotation (:mod:`openselfsup.values`) of what is computed with here; other
                values are checked as those of our fields.

        Raises:
            Stop: it is not there and has no default, or is of another kind.
        """
        self.known.add(key)
        if key in self.left:
            value = self.left.pop(key)
            if value != default and (said := fault(value, kind)):
                self.mistake(key, f'{key} {said}')
                raise Stop
            return value
        if default is _REQUIRED:
            self.mistake(key, f"{self.name} needs '{key}'")
            raise Stop
        return default

    def given(self, *keys: str) -> dict[str, Any]:
        """Return those of the keys that are there, with their values: they are called so here."""
        self.known.update(keys)
        return {key: self.left.pop(key) for key in keys if key in self.left}

    def part(self, key: str) -> 'Fields':
        """Return the dict under a key."""
        return self.part_of(self.take(key), key)

    def part_of(self, values: Any, key: str) -> 'Fields':
        """Return a dict that was taken from under a key."""
        return Fields(values, (*self.path, *key.split('.')), self.log)

    def part_or_empty(self, key: str) -> 'Fields':
        """Return the dict under a key, an empty one where there is none."""
        values = self.take(key, None)
        return self.part_of({} if values is None else values, key)

    def only(self, key: str, value: Any, why: str, default: Any = None) -> None:
        """Take a key that may have one value only, which is what happens here anyway."""
        found = self.take(key, value if default is None else default)
        if found != value:
            self.mistake(key, f'{key} is {found!r}; {why}')

    def ignore(self, why: str, *keys: str) -> None:
        """Take keys of which nothing becomes of here, and note why."""
        for key in keys:
            self.known.add(key)
            if key in self.left:
                self.note('ignored', f'{self.left.pop(key)!r}: {why}', key=key)

    def note(self, kind: Kind, text: str, ours: str = '', key: str = '') -> None:
        """Note what is not one to one; ``ours`` is a key path with dots."""
        path = (*self.path, key) if key else self.path
        self.log.notes.append(Note(kind, '.'.join(path), text,
                                   tuple(ours.split('.')) if ours else ()))

    def mistake(self, key: str, what: str) -> None:
        """Note a mistake at a key."""
        self.log.problems.append(Problem((*self.path, key), what))

    def wrong(self, what: str, close: str | None = None) -> Stop:
        """Note a mistake of the whole dict and return what to raise."""
        self.log.problems.append(Problem(self.path, what, close))
        return Stop()

    def close(self) -> None:
        """Note each key that nothing has taken as a mistake."""
        for key in self.left:
            self.log.problems.append(Problem((*self.path, key), f"{self.name} takes no '{key}'",
                                             nearest(key, self.known)))
