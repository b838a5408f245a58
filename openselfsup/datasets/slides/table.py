"""The table of a cohort: what is known of each slide beside its pixels."""

import csv
import dataclasses
import os
import re
from collections.abc import Sequence

from ...errors import UserError, listed, nearest
from .dicom import is_dicom

_COLUMNS = ('weight', 'label', 'mpp')


@dataclasses.dataclass(frozen=True)
class Row:
    """What a table says of one slide.

    Attributes:
        weight: how often the slide is seen, relative to others.
        label: its class, None without.
        mpp: micrometres per pixel in place of what the file tells, None without.
        group: what the slides are balanced over (patient, site, stain), None without.
    """

    weight: float = 1.
    label: str | None = None
    mpp: float | None = None
    group: str | None = None


def read_table(file: str, slides: Sequence[str], groups: str | None) -> dict[str, Row]:
    """Read a CSV file with a column ``slide`` and any of ``weight``, ``label`` and ``mpp``.

    Blanks around names and values do not count.

    Args:
        file: the table. A slide stands in it by its path or the end of its path, or by its name
            with or without its ending.
        slides: paths of the slides that are there. Those that the table lacks are left out.
        groups: the column that slides are balanced over, None for none.

    Returns:
        The rows of the slides that it names, by their paths.

    Raises:
        UserError: no such file or column, one whose name is nearly one of the above, rows that
            name no slide, several or one that another row names, rows with too few or too many
            values or without a group, wrong numbers.
    """
    rows, columns = _lines(file)
    for column in ('slide', *([groups] if groups else [])):
        if column not in columns:
            raise UserError(f"the table has no column '{column}'", where=file,
                            expected='one of ' + ', '.join(columns),
                            nearest=nearest(column, columns))
    for column in columns:
        for name in _COLUMNS:
            if column != groups and name not in columns and _plain(column) == name:
                raise UserError(f"the column '{column}' is not read", where=file,
                                expected=f"'{name}', or another name")
    by_name: dict[str, list[str]] = {}
    for path in slides:
        parts = path.replace(os.sep, '/').split('/')
        names = {'/'.join(parts[i:]) for i in range(len(parts))}
        if is_dicom(path):
            names |= {'/'.join(parts[i:-1]) for i in range(len(parts) - 1)}
        for name in names | {os.path.splitext(parts[-1])[0]}:
            by_name.setdefault(name, []).append(path)
    found: dict[str, Row] = {}
    line_of: dict[str, int] = {}
    wrong: list[str] = []
    for number, values in rows:
        if len(values) < len(columns) or any(values[len(columns):]):
            wrong.append(f'line {number}: {len(values)} values for {len(columns)} columns')
            continue
        row = dict(zip(columns, values))
        name = row['slide'].replace(os.sep, '/')
        paths = by_name.get(name, [])
        if len(paths) != 1:
            wrong.append(f"line {number}: '{name}' is " + (
                f'the name of {len(paths)} slides' if paths else 'no slide that is there'))
            continue
        if (first := line_of.setdefault(paths[0], number)) != number:
            wrong.append(f"line {number}: the slide '{name}' stands in line {first} already")
            continue
        if groups and not row[groups]:
            wrong.append(f"line {number}: '{name}' has no value in the column '{groups}'")
            continue
        try:
            weight, mpp = float(row.get('weight') or 1), float(row.get('mpp') or 0)
            if not (0 <= weight < 1e9 and 0 <= mpp < 1e3):
                raise ValueError
        except ValueError:
            wrong.append(f"line {number}: weight '{row.get('weight')}' and mpp '{row.get('mpp')}' "
                         'must be numbers, at least 0')
            continue
        found[paths[0]] = Row(weight, row.get('label') or None, mpp or None,
                              row[groups] if groups else None)
    if wrong:
        raise UserError(listed(f'{len(wrong)} of {len(rows)} lines cannot be used', wrong),
                        where=file)
    if len({row.label is None for row in found.values()}) > 1:
        raise UserError('some slides have a label, others have none', where=file,
                        expected="a value in each line of the column 'label', or no such column")
    return found


def _lines(file: str) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return the lines that are not empty with their numbers, and the header, without blanks."""
    try:
        with open(file, newline='', encoding='utf-8-sig') as text:
            reader = csv.reader(text)
            lines = [(reader.line_num, [value.strip() for value in values]) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'this table cannot be read ({error})', where=file) from None
    lines = [(number, values) for number, values in lines if any(values)]
    columns = lines.pop(0)[1] if lines else []
    for column in columns:
        if column and columns.count(column) > 1:
            raise UserError(f"the table has {columns.count(column)} columns '{column}'",
                            where=file, expected='a name of its own for each')
    return lines, columns


def _plain(column: str) -> str:
    """Return what a column's name may have meant: 'label' for 'Labels', 'mpp' for 'MPP_'."""
    return re.sub(r'[\W_]|s$', '', column.lower())
