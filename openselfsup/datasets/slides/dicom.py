"""Which files of DICOM are one slide: those of one series in one folder."""

import os
import struct
from collections.abc import Sequence
from typing import BinaryIO

_SERIES = (0x0020, 0x000E)  # Series Instance UID
_END_OF_SEQUENCE = (0xFFFE, 0xE0DD)
_LONG = (b'OB', b'OD', b'OF', b'OL', b'OV', b'OW', b'SQ', b'SV', b'UC', b'UN', b'UR', b'UT', b'UV')
_UNDEFINED = 0xFFFFFFFF


def is_dicom(path: str) -> bool:
    """Return whether a file is one of DICOM, by its name."""
    return path.lower().endswith('.dcm')


def one_of_each_series(paths: Sequence[str]) -> list[str]:
    """Return the paths without all files of DICOM but the first of each series and folder."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for path in paths:
        series = series_of(path) if is_dicom(path) else None
        if series is not None:
            key = os.path.realpath(os.path.dirname(path)), series
            if key in seen:
                continue
            seen.add(key)
        kept.append(path)
    return kept


def slide_names(paths: Sequence[str]) -> list[str]:
    """Return what slides are called: a file's name without its ending, of DICOM its folder's.

    A folder with several slides of DICOM gives them the names of their files.
    """
    folders = [os.path.dirname(os.path.abspath(path)) if is_dicom(path) else None
               for path in paths]
    return [os.path.splitext(os.path.basename(path))[0] if folder is None
            or folders.count(folder) > 1 else os.path.basename(folder)
            for path, folder in zip(paths, folders)]


def series_of(path: str) -> str | None:
    """Return the Series Instance UID of a file, None if it is damaged or no such file.

    Only explicit VR in little endian is read, as all slides have it (DICOM PS3.5, 7.1).
    """
    try:
        with open(path, 'rb') as file:
            file.seek(128)
            return _find(file) if file.read(4) == b'DICM' else None
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _find(file: BinaryIO) -> str | None:
    """Return the series of an open file; that of a sequence, of another file, is passed over."""
    depth = 0  # of sequences without a length, which end by a mark
    while True:
        group, element, kind, length = struct.unpack('<HH2sH', file.read(8))
        tag = group, element
        if group == _END_OF_SEQUENCE[0]:  # an item, which is entered, or an end
            depth -= tag == _END_OF_SEQUENCE
            continue
        if kind in _LONG:
            length, = struct.unpack('<I', file.read(4))
        if tag == _SERIES and not depth:
            return file.read(length).decode('ascii').strip('\0 ')
        if tag > _SERIES and not depth:
            return None
        if length == _UNDEFINED:
            depth += 1
        else:
            file.seek(length, os.SEEK_CUR)
