"""Going on with a folder that an earlier run has begun to prepare."""

import os
from collections.abc import Iterable
from pathlib import Path

from ...errors import UserError, listed
from ...files import read_json, write_json
from ..sources import stamp_of


def go_on_with(path: Path, options: dict[str, object], src: Path, inputs: Iterable[Path]) -> None:
    """Note the options and the inputs of a run; refuse to go on from a run with others.

    Files that are there are not made again, so those of other options, or of an input as it was
    before, would stay among ours. Inputs may be added.

    Args:
        path: file to note them in, of its own for each kind of data that a folder may hold.
        options: by name, of types that JSON has.
        src: folder of the inputs, which may have moved.
        inputs: files that what is prepared depends on, known by size and time of change.

    Raises:
        UserError: an earlier run noted other options, or an input has changed since.
    """
    stamps = {os.path.relpath(file, src): list(stamp_of(file) or ()) for file in inputs}
    if path.exists():
        earlier = read_json(path)
        known = earlier.pop('inputs', {})
        other = [f'{key} {earlier.get(key)}, now {options.get(key)}'
                 for key in {**options, **earlier} if earlier.get(key) != options.get(key)]
        if other:
            raise UserError(f"this folder was prepared with {'; '.join(other)}",
                            where=str(path.parent), expected='the same options, or another DST')
        changed = [name for name, stamp in stamps.items() if known.get(name, stamp) != stamp]
        if changed:
            raise UserError(listed(f'{len(changed)} files have another size or time of change '
                                   'than when this folder was prepared from them', changed),
                            where=str(path.parent), expected='another DST')
        stamps = known | stamps
    write_json(path, {**options, 'inputs': stamps})
