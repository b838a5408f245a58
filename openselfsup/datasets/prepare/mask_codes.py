"""From the codes of masks to classes, as a config says it, and what to write where it says less."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import UserError, nearest
from .masks import Mask, colour_name

IGNORE, OTHERS = 'ignore', 'others'
_UNKNOWN = -1
_NAMED = 10  # values that a message names


class CodeTable:
    """Which class each code, or colour, of a mask is.

    Args:
        classes: names of the classes 0, 1, ...; at most 255.
        ignore_index: value that pixels get which do not count; no class.
        codes: class, by number or name, or 'ignore', by code (an integer) or by colour
            ('#rrggbb' or 'r,g,b'); the key 'others' is for all that are not named. None: the
            masks hold classes already, and ``ignore_index``.

    Attributes:
        classes: names of the classes.
        ignore_index: value of pixels that do not count.
        colours: whether the codes are colours.

    Raises:
        UserError: all mistakes at once.
    """

    def __init__(self, classes: Sequence[str], ignore_index: int = 255,
                 codes: Mapping[Any, Any] | None = None):
        self.classes, self.ignore_index = list(classes), ignore_index
        problems = _class_problems(self.classes, ignore_index)
        self.named: dict[int, int] = {}
        self.others, self.colours = _UNKNOWN, False
        if codes is None:
            self.named = {**{i: i for i in range(len(self.classes))}, ignore_index: ignore_index}
        elif not isinstance(codes, Mapping) or not codes:
            problems.append(f'codes is {codes!r}, expected a mapping such as {{0: 0, 255: 1}}')
        else:
            self._read(codes, problems)
        if problems:
            raise UserError(f'{len(problems)} mistakes in the classes of the masks:\n  '
                            + '\n  '.join(problems))
        keys = np.array(sorted(self.named), np.int64)
        self._keys, self._labels = keys, np.array([self.named[k] for k in keys], np.int16)

    def labels(self, mask: Mask) -> np.ndarray:
        """Return the classes of a mask, int16 [H, W]; -1 where a value is not named."""
        if not len(self._keys):
            return np.full(mask.values.shape, self.others, np.int16)
        if mask.values.dtype == np.uint8:  # a table is ten times faster than a search
            return self._find(np.arange(256))[mask.values]
        return self._find(mask.values)

    def _find(self, values: np.ndarray) -> np.ndarray:
        places = np.searchsorted(self._keys, values).clip(max=len(self._keys) - 1)
        return np.where(self._keys[places] == values, self._labels[places],
                        np.int16(self.others))

    def name(self, label: int) -> str:
        """Return the name of a class, 'ignored' for pixels that do not count."""
        return 'ignored' if label == self.ignore_index else self.classes[label]

    def _read(self, codes: Mapping[Any, Any], problems: list[str]) -> None:
        kinds = set()
        for key, value in codes.items():
            label = self._label(value)
            if label is None:
                close = nearest(str(value), [*self.classes, IGNORE])
                problems.append(f'codes: {key!r} is {value!r}, expected a class (0 to '
                                f"{len(self.classes) - 1}, or its name) or '{IGNORE}'"
                                + (f"; did you mean '{close}'?" if close else ''))
                continue
            if key == OTHERS:
                self.others = label
                continue
            kind, code = _code(key)
            if kind is None:
                problems.append(f"codes: {key!r} is no code, expected an integer, '#rrggbb', "
                                f"'r,g,b' or '{OTHERS}'")
                continue
            kinds.add(kind)
            if self.named.setdefault(code, label) != label:
                problems.append(f'codes: {key!r} is named twice')
        if len(kinds) > 1:
            problems.append('codes: some are integers and some are colours, expected one kind')
        self.colours = kinds == {'colour'}

    def _label(self, value: Any) -> int | None:
        if value == IGNORE or type(value) is int and value == self.ignore_index:
            return self.ignore_index
        if type(value) is int and 0 <= value < len(self.classes):
            return value
        return self.classes.index(value) if value in self.classes else None


def advice(found: Counter, colours: bool, table: CodeTable) -> str:
    """Return what a config must say of masks that hold other values than it names.

    Args:
        found: pixels by value, over all masks.
        colours: whether the values are colours.
        table: what the config says.
    """
    if len(found) > 4 * _NAMED + len(table.classes):
        return (f'these are {len(found)} different values: are they masks? Smoothing, resizing '
                'and lossy compression make such values of codes')
    values = sorted(found)
    if len(values) == len(table.classes) and not table.others >= 0:
        named = dict(zip(values, table.classes))
    else:
        named = {v: table.name(table.named[v]) if v in table.named and colours == table.colours
                 else 'CLASS' for v in values}
    pairs = ', '.join(f'{_key(v, colours)}: {IGNORE if n == "ignored" else n}'
                      for v, n in named.items())
    return f'write into the config, with the right classes: codes: {{{pairs}}}'


def shares(found: Counter, colours: bool) -> str:
    """Return values and their shares of all pixels, the largest first, as one line."""
    total = found.total() or 1
    named = [f'{_key(v, colours)} {n / total:.2%}' for v, n in found.most_common(_NAMED)]
    return ', '.join(named) + (f' and {len(found) - _NAMED} more' if len(found) > _NAMED else '')


def _key(value: int, colours: bool) -> str:
    return f"'{colour_name(value)}'" if colours else str(value)


def _code(key: Any) -> tuple[str | None, int]:
    """Return kind ('code' or 'colour') and value of a key; None where it is neither."""
    if type(key) is int:
        return 'code', key
    parts = key.split(',') if isinstance(key, str) else []
    try:
        if len(parts) == 3:
            r, g, b = (int(part) for part in parts)
            if max(r, g, b) < 256 and min(r, g, b) >= 0:
                return 'colour', 65536 * r + 256 * g + b
        elif len(parts) == 1 and key.startswith('#') and len(key) == 7:
            return 'colour', int(key[1:], 16)
        elif len(parts) == 1:
            return 'code', int(key)
    except ValueError:
        pass
    return None, 0


def _class_problems(classes: list, ignore_index: Any) -> list[str]:
    problems = []
    if not classes or not all(isinstance(name, str) and name for name in classes):
        problems.append(f'classes is {classes!r}, expected names as text (YAML reads no and yes '
                        'as false and true: put them in quotes)')
    elif len(set(classes)) < len(classes) or len(classes) > 255:
        problems.append('classes must differ from one another, and be 255 at most')
    if {IGNORE, OTHERS, 'ignored'} & set(map(str, classes)):
        problems.append(f"no class can be called '{IGNORE}', 'ignored' or '{OTHERS}'")
    if type(ignore_index) is not int or not len(classes) <= ignore_index <= 255:
        problems.append(f'ignore_index is {ignore_index!r}, expected a number that is no class, '
                        f"from {len(classes)} to 255; to ignore a code, name it '{IGNORE}' in "
                        'codes')
    return problems
