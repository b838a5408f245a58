"""Whose results a folder holds: those of the same weights, tiles and settings, or of others."""

import hashlib
import json
import os
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..datasets.identity import stamps
from ..datasets.sources import Source
from ..errors import UserError
from ..files import flat
from .results import FILE, plain, read_results


class Owned(Protocol):
    """What all kinds of results tell of their inputs."""

    model: dict[str, Any]
    data: dict[str, Any]
    request: dict[str, Any]

    @property
    def rows(self) -> Sequence[Any]:
        """What was found."""
        ...


def digest(*parts: Source) -> str:
    """Return one SHA-256 over the labels, names and stamps (:meth:`Source.stamp`) of tiles.

    Tiles that moved to another folder as they are keep their digest; a file that was written
    anew changes it.
    """
    found = hashlib.sha256()
    for part in parts:
        for i, stamp in enumerate(stamps(part)):
            path = part.path(i)
            # The empty text keeps the digests in the results.json of earlier versions.
            entry = [path] if stamp is None else [os.path.basename(path), *stamp]
            found.update(json.dumps([part.label(i), '', *entry]).encode())
        found.update(b'|')
    return found.hexdigest()


def settle(out: Path, results: Owned, renamed: bool, file: str = FILE,
           read: Callable[[Path], Owned] = read_results) -> tuple[Path, int]:
    """Return the folder that results may be written to, and how many rows of them it holds.

    Args:
        out: the folder that is wanted.
        results: what is to be written, as far as it is known: weights, tiles, request.
        renamed: where ``out`` holds other results, take the first of ``out_2``, ``out_3``, ...
            that does not; else refuse.
        file: name of the results in the folder.
        read: reads those of a folder.

    Raises:
        UserError: ``out`` holds the results of other weights, tiles or settings, or results
            that cannot be read.
    """
    folder, number = out, 1
    while (folder / file).exists():
        try:
            old = read(folder)
            other = _differences(old, results)
        except UserError as error:
            if not renamed:
                raise
            other = [str(error)]
        if not other:
            return folder, len(old.rows)
        if not renamed:
            raise UserError(f'this folder holds other results: {"; ".join(other)}',
                            where=str(folder), expected='another --out, or this one emptied')
        number += 1
        folder = out.with_name(f'{out.name}_{number}')
    return folder, 0


def _differences(old: Owned, new: Owned) -> list[str]:
    """Say in what the inputs of two results differ, not how they are called."""
    found = []
    if (old.model['name'], old.model['sha256']) != (new.model['name'], new.model['sha256']):
        found.append(f"of the weights {old.model['path'] or 'of no checkpoint'}, not "
                     f"{new.model['path'] or 'of none'}")
    elif old.model.get('reading', new.model['reading']) != new.model['reading']:
        found.append('of the same weights in another network (heads, activations, positions, ...)')
    if old.data.get('digest') != new.data['digest']:
        found.append(f"of other tiles (then {old.data['train']['tiles']} and "
                     f"{old.data['test']['tiles']}, such as {old.data['test']['first']})")
    return found + other_settings(old.request, plain(new.request), '{key} was {old} and is {new}')


def other_settings(old: Mapping[str, Any], new: Mapping[str, Any], said: str,
                   but: Container[str] = ()) -> list[str]:
    """Return the settings that differ between two requests.

    Args:
        old, new: settings by name, also dicts of such.
        said: a sentence with the fields key, old and new.
        but: names that do not count.
    """
    old, new = (flat({key: value for key, value in one.items() if key not in but})
                for one in (old, new))
    return [said.format(key=key, old=_short(old.get(key)), new=_short(new.get(key)))
            for key in sorted({*old, *new}) if old.get(key) != new.get(key)]


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
