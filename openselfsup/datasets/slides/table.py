"""The table of a cohort: what is known of each slide beside its pixels."""

import csv
import dataclasses
import os
from collections.abc import Sequence

from ...errors import UserError, listed, nearest
from .dicom import is_dicom


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

    Args:
        file: the table. A slide stands in it by its path or the end of its path, or by its name
            with or without its ending.
        slides: paths of the slides that are there. Those that the table lacks are left out.
        groups: the column that slides are balanced over, None for none.

    Returns:
        The rows of the slides that it names, by their paths.

    Raises:
        UserError: no such file or column, rows that name no slide or several, wrong numbers.
    """
    try:
        with open(file, newline='', encoding='utf-8-sig') as lines:
            reader = csv.DictReader(lines)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'this table cannot be read ({error})', where=file) from None
    for column in ('slide', *([groups] if groups else [])):
        if column not in columns:
            raise UserError(f"the table has no column '{column}'", where=file,
                            expected='one of ' + ', '.join(columns),
                            nearest=nearest(column, columns))
    by_name: dict[str, list[str]] = {}
    for path in slides:
        parts = path.replace(os.sep, '/').split('/')
        names = {'/'.join(parts[i:]) for i in range(len(parts))}
        if is_dicom(path):
            names |= {'/'.join(parts[i:-1]) for i in range(len(parts) - 1)}
        for name in names | {os.path.splitext(parts[-1])[0]}:
            by_name.setdefault(name, []).append(path)
    found: dict[str, Row] = {}
    wrong: list[str] = []
    for number, row in enumerate(rows, 2):
        name = row['slide'].replace(os.sep, '/')
        paths = by_name.get(name, [])
        if len(paths) != 1:
            wrong.append(f"line {number}: '{name}' is " + (
                f'the name of {len(paths)} slides' if paths else 'no slide that is there'))
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
