"""Going on with a folder that an earlier run has begun to prepare."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ...errors import UserError, listed
from ...files import read_json, write_json
from ..sources import stamp_of


def go_on_with(path: Path, options: dict[str, object], src: Path, inputs: Iterable[Path],
               made_of: Callable[[Path], bool] = lambda file: True) -> None:
    """Note the options and the inputs of a run; refuse to go on from a run with others.

    Files that are there are not made again, so those of other options, or of an input as it was
    before, would stay among ours. Inputs may be added, and those that nothing was made of (they
    were damaged, and left out) may be mended.

    Args:
        path: file to note them in, of its own for each kind of data that a folder may hold.
        options: by name, of types that JSON has.
        src: folder of the inputs, which may have moved.
        inputs: files that what is prepared depends on, known by size and time of change.
        made_of: whether something that was made of an input is there.

    Raises:
        UserError: an earlier run noted other options, or an input that something was made of has
            changed since.
    """
    names = {os.path.relpath(file, src): file for file in inputs}
    stamps = {name: list(stamp_of(file) or ()) for name, file in names.items()}
    if path.exists():
        earlier = read_json(path)
        known = earlier.pop('inputs', {})
        other = [f'{key} {earlier.get(key)}, now {options.get(key)}'
                 for key in {**options, **earlier} if earlier.get(key) != options.get(key)]
        if other:
            raise UserError(f"this folder was prepared with {'; '.join(other)}",
                            where=str(path.parent), expected='the same options, or another DST')
        changed = [name for name, stamp in stamps.items()
                   if known.get(name, stamp) != stamp and made_of(names[name])]
        if changed:
            raise UserError(listed(f'{len(changed)} files have another size or time of change '
                                   'than when this folder was prepared from them', changed),
                            where=str(path.parent), expected='another DST')
        stamps = known | stamps
    write_json(path, {**options, 'inputs': stamps})
