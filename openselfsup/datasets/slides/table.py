"""The table of a cohort: what is known of each slide beside its pixels."""

import csv
import dataclasses
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, listed, located, nearest
from .dicom import is_dicom

_COLUMNS = ('weight', 'label', 'mpp')
_MOST = dict(weight=1e9, mpp=1e3)  # that these numbers may be


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

    Blanks around names and values do not count. Values are parted by commas; by semicolons, where
    numbers may have a decimal comma, or tabs if the header holds no comma.

    Args:
        file: the table. A slide stands in it by its path, absolute or from the working directory,
            by the end of its path, or by its name with or without its ending.
        slides: paths of the slides that are there. Those that the table lacks are left out.
        groups: the column that slides are balanced over, None for none.

    Returns:
        The rows of the slides that it names, by their paths.

    Raises:
        UserError: no such file or column, no UTF-8, no rows, a column whose name is nearly one of
            the above, rows that name no slide, several or one that another row names, rows with
            too few or too many values or without a group, wrong numbers.
    """
    rows, columns, separator = _lines(file)
    if 'slide' not in columns:
        close = nearest('slide', columns)
        raise UserError(f"no column of this table is called 'slide', it has "
                        f"{', '.join(columns)}", where=file, expected="'slide' in its first line, "
                        + (f"in place of '{close}'" if close else 'above what names the slides'))
    if groups and groups not in columns:
        raise UserError(f"the table has no column '{groups}' for groups", where=file,
                        expected='one of ' + ', '.join(columns), nearest=nearest(groups, columns))
    if not rows:
        raise UserError('this table names no slide', where=file,
                        expected='a line for each slide below the header')
    for column in columns:
        for name in _COLUMNS:
            if column != groups and name not in columns and _plain(column) == name:
                raise UserError(f"the column '{column}' is not read", where=file,
                                expected=f"'{name}', or another name")
    by_name: dict[str, list[str]] = {}
    for path in slides:
        names = {os.path.splitext(os.path.basename(path))[0]}
        for written in (path, os.path.abspath(path)):
            parts = written.replace(os.sep, '/').split('/')
            names |= {'/'.join(parts[i:]) for i in range(len(parts))}
            if is_dicom(path):
                names |= {'/'.join(parts[i:-1]) for i in range(len(parts) - 1)}
        for name in names:
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
        ways = (name, os.path.abspath(name), os.path.normpath(name)) if name else ()
        paths = next((by_name[way.replace(os.sep, '/')] for way in ways
                      if way.replace(os.sep, '/') in by_name), [])
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
        numbers = {name: _number(row.get(name), separator, most) for name, most in _MOST.items()}
        if bad := [f"{name} '{row[name]}' must be a number from 0 to {_MOST[name]:,.0f}"
                   for name, value in numbers.items() if value is None]:
            wrong.append(f"line {number}: {' and '.join(bad)}")
            continue
        weight = (numbers['weight'] or 0.) if row.get('weight') else 1.
        found[paths[0]] = Row(weight, row.get('label') or None, numbers['mpp'] or None,
                              row[groups] if groups else None)
    if wrong:
        raise UserError(listed(f'{len(wrong)} of {len(rows)} lines cannot be used', wrong),
                        where=file)
    if len({row.label is None for row in found.values()}) > 1:
        raise UserError('some slides have a label, others have none', where=file,
                        expected="a value in each line of the column 'label', or no such column")
    return found


def _number(value: str | None, separator: str, most: float) -> float | None:
    """Return a number from 0 to ``most``, 0 for no value, None for anything else."""
    try:
        number = float((value or '0').replace(',', '.' if separator == ';' else ','))
    except ValueError:
        return None
    return number if 0 <= number <= most else None


def _lines(file: str) -> tuple[list[tuple[int, list[str]]], list[str], str]:
    """Return the lines that are not empty with their numbers, the header, and the separator.

    Values and names are without blanks.
    """
    try:
        text = Path(file).read_bytes().decode('utf-8-sig')
    except FileNotFoundError:
        folder = Path(file).parent
        there = os.listdir(folder) if folder.is_dir() else []
        raise UserError('no such table', where=located(file),
                        nearest=nearest(os.path.basename(file), there)) from None
    except UnicodeDecodeError:
        raise UserError('this table is not in UTF-8', where=file, expected='a text file, in Excel '
                        "saved as 'CSV UTF-8'") from None
    except OSError as error:
        raise UserError(f'this table cannot be read ({error.strerror})', where=file) from None
    head = re.split('[\r\n]', text.lstrip(), maxsplit=1)[0]
    separator = next((mark for mark in (',', ';', '\t') if mark in head), ',')
    try:
        reader = csv.reader(io.StringIO(text, newline=''), delimiter=separator)
        read = [(reader.line_num, [value.strip() for value in values]) for values in reader]
    except csv.Error as error:
        raise UserError(f'this table cannot be read ({error})', where=file) from None
    lines = [(number, values) for number, values in read if any(values)]
    if not lines:
        raise UserError('this table is empty', where=file,
                        expected="a line of names, 'slide' among them, and a line for each slide")
    columns = lines.pop(0)[1]
    for column in columns:
        if column and columns.count(column) > 1:
            raise UserError(f"the table has {columns.count(column)} columns '{column}'",
                            where=file, expected='a name of its own for each')
    return lines, columns, separator


def _plain(column: str) -> str:
    """Return what a column's name may have meant: 'label' for 'Labels', 'mpp' for 'MPP_'."""
    return re.sub(r'[\W_]|s$', '', column.lower())
