"""Lists of tiles, as users and their other programs write them."""

import codecs
import os
import re
from pathlib import Path

from ..errors import UserError, listed, located, shown
from .headers import SUFFIXES


def parse_list(list_file: str, classes: list[str] | None) -> list[tuple[str, int | None]]:
    """Parse a list of tiles into (path, label or None).

    Args:
        list_file: the list, see :func:`read_lines`.
        classes: names of the classes, which labels must be below in number; None for any.

    Raises:
        UserError: it cannot be read, or lines are not of the form; all of them at once.
    """
    entries, problems = [], []
    for number, line in enumerate(read_lines(list_file), 1):
        if not line.strip():
            continue
        try:
            entries.append(_parse_line(line.strip(), classes))
            if (entries[-1][1] is None) != (entries[0][1] is None):
                raise ValueError('some lines have a label, some have none')
        except ValueError as error:
            problems.append(f'{list_file}:{number}: {error}')
    if problems:
        raise UserError(listed(f"{len(problems)} lines are not of the form 'path' or 'path label'",
                               problems), where=str(list_file))
    return entries


def read_lines(path: str | Path) -> list[str]:
    """Read the lines of a text file that a user or another program wrote.

    UTF-8 with or without a mark, and UTF-16 with a mark (Excel and PowerShell write it). Other
    bytes are kept as they are, as in names of files that are not UTF-8.

    Raises:
        UserError: no such file, one that cannot be read, or UTF-16 without a mark.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError('no such list of tiles', where=located(path), expected=(
            "a line 'path' or 'path label' for each tile; openselfsup prepare writes lists, those "
            'of PLM_SSL and ConCL (data/NCT/meta) come with these repositories')) from None
    except OSError as error:
        raise UserError(error.strerror or str(error), where=located(path)) from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            text = data.decode('utf-16')
        except UnicodeDecodeError as error:
            raise UserError(f'this UTF-16 file is damaged or cut off ({error.reason})',
                            where=str(path)) from None
    elif b'\0' in data:
        raise UserError('this list holds NUL bytes: it is UTF-16 without a mark, or no text',
                        where=str(path), expected='UTF-8, for instance by iconv -f UTF-16LE '
                                                  f'-t UTF-8 {path} > NEW.txt')
    else:
        text = data.decode('utf-8-sig', 'surrogateescape')
    return re.split('\r\n|\n|\r', text)  # splitlines knows further ends, which names may hold


def check_encoding(list_file: str, paths: list[str]) -> None:
    """Refuse a list in another encoding: its bytes are those of no file.

    Raises:
        UserError: a path that is not UTF-8 is not there.
    """
    for path in paths:
        if not path.isascii() and shown(path) != path and not os.path.exists(path):
            raise UserError(f'{path} is not there, and its name is not UTF-8', where=list_file,
                            expected='a list in UTF-8, for instance by iconv -f WINDOWS-1252 -t '
                                     f'UTF-8 {list_file} > NEW.txt')


def _parse_line(line: str, classes: list[str] | None) -> tuple[str, int | None]:
    if line.lower().endswith(SUFFIXES):
        return line, None
    path, word = line.rsplit(None, 1) if len(line.split()) > 1 else (line, '')
    if not path.lower().endswith(SUFFIXES):
        hint = ('; path and label are parted by a space, without quotes'
                if re.search('[,;"\']', line) else '')
        raise ValueError(f"'{line}' names no file ending in {', '.join(SUFFIXES)}{hint}")
    if not word.isdecimal():
        raise ValueError(f"the label '{word}' is not a whole number of at least 0")
    if classes is not None and int(word) >= len(classes):
        raise ValueError(f'the label {word} is not below {len(classes)}, the number of classes')
    return path, int(word)
