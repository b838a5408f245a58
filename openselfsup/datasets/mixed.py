"""Several sources as one."""

from collections.abc import Sequence

import numpy as np
import torch

from ..errors import UserError, listed
from ..registry import SOURCES
from ..values import Count
from .headers import Header
from .sources import Source, build_source
from .tile_error import read_checked


@SOURCES.register_module()
class Mixed(Source):
    """The tiles of several sources, one source after another, some of them several times.

    There are labels where all sources have labels and name the same classes in the same order.

    Args:
        sources: the sources (``type`` in SOURCES), one at least.
        repeat: how many times the tiles of each source are seen in an epoch, so that small sets
            are not lost beside large ones; once each by default.

    Attributes:
        sources: the sources.
        repeat: one number for each of them.

    Raises:
        UserError: no source, not one number for each, or a source that cannot be built.
    """

    def __init__(self, sources: Sequence[dict | Source], repeat: Sequence[Count] | None = None):
        self.sources = [build_source(source) for source in sources]
        self.repeat = [1] * len(self.sources) if repeat is None else list(repeat)
        if not self.sources:
            raise UserError('there is not one source', where='sources')
        if len(self.repeat) != len(self.sources):
            raise UserError(f'{len(self.repeat)} numbers for {len(self.sources)} sources',
                            where='repeat', expected='one number for each source')
        self._sizes = [len(source) for source in self.sources]
        self._ends = np.cumsum([size * times for size, times in zip(self._sizes, self.repeat)])
        self.grouped = any(source.grouped for source in self.sources)
        self.endless = any(source.endless for source in self.sources)
        self._known_parts: tuple[np.ndarray | None, list] = (None, [])
        self.passed_over = '; '.join(filter(None, (s.passed_over for s in self.sources)))
        self.fault = next(filter(None, (s.fault for s in self.sources)), None)
        self.tile_size = self._common_size()
        classes = self.sources[0].classes
        labels = [source.labels for source in self.sources if source.labels is not None]
        if classes is not None and len(labels) == len(self.sources) and all(
                source.classes == classes for source in self.sources):
            self.classes = classes
            self.labels = np.concatenate([np.tile(own, times) for own, times
                                          in zip(labels, self.repeat)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> np.ndarray:
        source, place = self._place(index)
        return read_checked(source, place)

    def path(self, index: int) -> str:
        source, place = self._place(index)
        return source.path(place)

    def stamp(self, index: int) -> Sequence[int] | None:
        source, place = self._place(index)
        return source.stamp(place)

    def files(self) -> list[str]:
        return [path for source in self.sources for path in source.files()]

    def label(self, index: int) -> int | None:
        source, place = self._place(index)
        return None if self.labels is None else source.label(place)

    def permutation(self, generator: torch.Generator) -> np.ndarray:
        if not self.grouped:
            return super().permutation(generator)
        # Each source keeps its own order; whose turn it is, is drawn.
        turns = np.repeat(np.arange(len(self.sources)), np.diff(self._ends, prepend=0))
        turns = turns[torch.randperm(len(self), generator=generator).numpy()]
        order = np.empty(len(self), np.int64)
        for number, (source, times) in enumerate(zip(self.sources, self.repeat)):
            start = self._ends[number] - self._sizes[number] * times
            order[turns == number] = np.concatenate(
                [source.permutation(generator) + start + turn * self._sizes[number]
                 for turn in range(times)])
        return order

    def coming(self, order: np.ndarray, place: int) -> None:
        if not self.grouped:
            return
        known, parts = self._known_parts
        if known is not order:
            inside = order % len(self)  # an endless source counts its epochs
            owner = np.searchsorted(self._ends, inside, 'right')
            parts = []
            for number, size in enumerate(self._sizes):
                places = np.flatnonzero(owner == number)
                start = self._ends[number] - size * self.repeat[number]
                parts.append((places, (inside[places] - start) % size))
            self._known_parts = order, parts
        for source, (places, tiles) in zip(self.sources, parts):
            source.coming(tiles, int(np.searchsorted(places, place)))

    def check(self) -> Sequence[Header]:
        """Check all sources; learn ``tile_size``.

        Returns:
            The header of every tile, in order; nothing if a source gives none.

        Raises:
            UserError: some tiles cannot be used; those of all sources are told.
        """
        found: list[Sequence[Header]] = []
        errors: list[UserError] = []
        for source in self.sources:
            try:
                found.append(source.check())
            except UserError as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise UserError(listed(f'{len(errors)} of {len(self.sources)} sources cannot be used',
                                   errors))
        self.tile_size = self._common_size()
        if not all(found):
            return ()
        return [header for headers, times in zip(found, self.repeat)
                for header in list(headers) * times]

    def _common_size(self) -> tuple[int, int] | None:
        sizes = {source.tile_size for source in self.sources}
        return sizes.pop() if len(sizes) == 1 else None

    def _place(self, index: int) -> tuple[Source, int]:
        """Return the source of a tile and its index there."""
        epoch, index = divmod(index, len(self)) if self.endless else (0, range(len(self))[index])
        number = int(np.searchsorted(self._ends, index, 'right'))
        start = self._ends[number - 1] if number else 0
        source, inside = self.sources[number], int(index - start)
        if source.endless:  # new tiles where it is repeated, too
            return source, epoch * self._sizes[number] * self.repeat[number] + inside
        return source, inside % self._sizes[number]
