"""Opening the tiles that a published config names beside those it trains on."""

from typing import Any

from ..datasets.sources import Source
from ..engine.config import report
from ..registry import SOURCES
from ..values import Side
from .data import translate_source
from .fields import Fields, Log, Path, Stop
from .reading import PublishedConfig


def open_tiles(dataset: Any, place: Path, published: PublishedConfig
               ) -> tuple[Source, list[tuple[str, int]]]:
    """Open the tiles of a published data set.

    Args:
        dataset: a dict with ``data_source`` and ``pipeline``.
        place: its key path.
        published: the config in which it stands.

    Returns:
        The tiles, and the type of each transform that has a size with its (first) side in pixels.

    Raises:
        UserError: it says something else, or the tiles cannot be read.
    """
    log, sides = Log(), []
    try:
        fields = Fields(dataset, place, log)
        ours = translate_source(fields.part('data_source'))
        for i, step in enumerate(fields.take('pipeline', (), list)):
            transform = fields.part_of(step, f'pipeline.{i}')
            kind, size = transform.take('type'), transform.take('size', None, Side)
            if size is not None:
                sides.append((kind, size if isinstance(size, int) else size[0]))
    except Stop:
        pass
    if log.problems:
        raise report(log.problems, published.path, published.files)
    return SOURCES.build(ours), sides
