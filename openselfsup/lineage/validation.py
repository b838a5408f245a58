"""Which tiles a published config validates on: ``data.val``, or those of its ``ValidateHook``."""

from pathlib import Path
from typing import NamedTuple

from ..datasets.sources import Source
from . import reading
from .tiles import open_tiles


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
    published = reading.read(path)
    hooks = published.values.get('custom_hooks') or ()
    candidates = [(published.values.get('data', {}).get('val'), ('data', 'val')),
                  *((hook.get('dataset'), ('custom_hooks', str(i), 'dataset'))
                    for i, hook in enumerate(hooks) if hook.get('type') == 'ValidateHook')]
    for found, place in candidates:
        if found is not None:
            source, sides = open_tiles(found, place, published)
            resize, crop = (dict(sides).get(kind) for kind in ('Resize', 'CenterCrop'))
            return Validation(source, crop or resize, resize)
    return None
