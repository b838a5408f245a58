"""What a source holds, and what is wrong with it."""

import dataclasses
from collections import Counter

from .headers import Header, TileError
from .parallel import default_workers, parallel_map, read_headers
from .sources import FileSource, Source
from .tile_error import read_checked


@dataclasses.dataclass
class Summary:
    """The result of :func:`verify`.

    Attributes:
        tiles: number of tiles, bad ones included.
        formats: tiles of each format (files only).
        sizes: tiles of each (width, height) in pixels.
        labels: tiles of each class, in the order of the labels; None without labels.
        bad: one line for each tile that cannot be used.
        passed_over: what else lies there, in words.
    """

    tiles: int
    formats: Counter
    sizes: Counter
    labels: dict[str, int] | None
    bad: list[str]
    passed_over: str = ''

    def __str__(self) -> str:
        lines = [f'tiles    {self.tiles}']
        if self.formats:
            lines.append('formats  ' + _counts(self.formats))
        sizes = Counter({f'{width} x {height} px': n for (width, height), n in self.sizes.items()})
        if sizes:
            lines.append('sizes    ' + _counts(sizes))
        lines.append('labels   ' + ('none' if self.labels is None else _counts(self.labels)))
        if self.passed_over:
            lines.append(f'others   {self.passed_over}')
        lines += [f'bad      {len(self.bad)}'] + [f'  {line}' for line in self.bad]
        return '\n'.join(lines)


def verify(source: Source, full: bool = False) -> Summary:
    """Look at every tile of a source.

    Args:
        source: a source of files, or any other (whose tiles are always read).
        full: decode every tile instead of reading its header only.
    """
    headers = read_headers(source.paths) if isinstance(source, FileSource) else []
    found: list[Header | TileError] = headers
    if full or not isinstance(source, FileSource):
        found = parallel_map(lambda i: _decoded(source, i, headers), range(len(source)),
                             default_workers())
    good = [entry for entry in found if isinstance(entry, Header)]
    return Summary(
        tiles=len(source),
        formats=Counter(entry.format for entry in good if entry.format),
        sizes=Counter((entry.width, entry.height) for entry in good),
        labels=_label_counts(source),
        bad=[str(entry) for entry in found if isinstance(entry, TileError)],
        passed_over=source.passed_over)


def _decoded(source: Source, index: int, headers: list) -> Header:
    """Decode a tile; raise what is wrong with it."""
    header = headers[index] if headers else None
    if isinstance(header, TileError):
        raise header
    tile = read_checked(source, index)
    return header or Header('', *tile.shape[:2])


def _label_counts(source: Source) -> dict[str, int] | None:
    if source.labels is None:
        return None
    counts = Counter(source.labels.tolist())
    if source.classes is None:
        return {str(label): counts[label] for label in sorted(counts)}
    return {name: counts[label] for label, name in enumerate(source.classes)}


def _counts(counts: dict, shown: int = 20) -> str:
    """Return 'name count' pairs; of a Counter the most frequent first."""
    pairs = counts.most_common() if isinstance(counts, Counter) else list(counts.items())
    text = ', '.join(f'{name}: {count}' for name, count in pairs[:shown])
    return text + (f', and {len(pairs) - shown} more' if len(pairs) > shown else '')
