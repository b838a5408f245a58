"""Which tiles a published config validates on: ``data.val``, or those of its ``ValidateHook``."""

from pathlib import Path
from typing import Any, NamedTuple

from ..datasets.sources import Source
from ..errors import UserError
from ..registry import SOURCES
from . import reading
from .data import translate_source
from .fields import Fields, Log, Stop


class Validation(NamedTuple):
    """Tiles to validate on.

    Attributes:
        source: the tiles.
        size: side of the input in pixels, None for that of the tiles.
        resize: short side of a tile before the crop, None for ``size``.
    """

    source: Source
    size: int | None
    resize: int | None


def validation_of(path: Path) -> Validation | None:
    """Return the validation tiles that a published config names, None where it names none.

    Raises:
        UserError: they cannot be read.
    """
    if not reading.is_published(path):
        return None
    values = reading.read(path).values
    hooks = [hook for hook in values.get('custom_hooks', ()) if hook.get('type') == 'ValidateHook']
    found: dict[str, Any] | None = values.get('data', {}).get('val') or next(
        (hook['dataset'] for hook in hooks if 'dataset' in hook), None)
    if found is None:
        return None
    log = Log()
    try:
        described = translate_source(Fields(found.get('data_source'), ('data', 'val'), log))
    except Stop:
        described = {}
    if log.problems:
        raise UserError('; '.join(problem.what for problem in log.problems), where=str(path))
    sizes = {step['type']: step['size'] for step in found.get('pipeline', ()) if 'size' in step}
    crop, resize = sizes.get('CenterCrop'), sizes.get('Resize')
    sides = [side if isinstance(side, int) or side is None else side[0] for side in (crop, resize)]
    return Validation(SOURCES.build(described), sides[0] or sides[1], sides[1])
