"""A sheet of nearest neighbours: which other tiles a backbone takes for the most similar."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..datasets.labeled import LabeledTileDataset
from ..evaluation.knn import nearest_tiles
from ..training.features import extract_features
from ..training.normalization import IMAGENET_MEAN, IMAGENET_STD
from .canvas import INK, SOFT_INK, Canvas, Panel

#: Of the same class, and of another one; both are told by their marks, too.
RIGHT, WRONG = ('✓', '#00795F'), ('✗', '#C8102E')
MARGIN, HEADER, HEADINGS, GAP, QUERY_GAP, CAPTION = 12.0, 30.0, 14.0, 7.0, 16.0, 15.0


def neighbour_sheet(backbone: nn.Module, tiles: LabeledTileDataset, queries: Sequence[int],
                    path: str | Path, *, k: int = 5, title: str = 'Nearest neighbours',
                    side: float = 58.0, mean: Sequence[float] = IMAGENET_MEAN,
                    std: Sequence[float] = IMAGENET_STD) -> Path:
    """Draw a row for each query: the tile, and the k others that are most similar to it.

    Similarity is the cosine of globally averaged features of the last map. A neighbour of the
    query's class has a green frame and a tick, another one a red frame and a cross.

    Args:
        backbone: maps normalised images (B, 3, H, W) to a list of feature maps.
        tiles: N labelled tiles; all of them are searched.
        queries: indices of the tiles that are asked for.
        path: the PNG to write.
        k: number of neighbours, at most N - 1.
        title: printed on top; under it stands what share of the neighbours of all N tiles are
            of their class, so that the queries need not be trusted.
        side: side of a tile on paper, in points.
        mean, std: normalisation of values in [0, 1].

    Returns:
        The path of the PNG.

    Raises:
        UserError: k is out of range, or features are not finite.
    """
    found = nearest_tiles(extract_features(backbone, tiles, mean=mean, std=std), None, k)[1]
    same = tiles.labels[found] == tiles.labels[:, None]
    names = tiles.classes or [str(label) for label in range(int(tiles.labels.max()) + 1)]
    canvas = Canvas(2 * MARGIN + side + QUERY_GAP + k * (side + GAP) - GAP,
                    MARGIN + HEADER + HEADINGS + len(queries) * (side + CAPTION + GAP))
    width = canvas.width - 2 * MARGIN
    canvas.text(MARGIN, MARGIN + 8, title, size=10, bold=True, max_width=width)
    canvas.text(MARGIN, MARGIN + 21, f'Of the {k} nearest of all {len(tiles)} tiles, '
                f'{100 * float(same.float().mean()):.0f} % are of the same class.', size=7,
                color=SOFT_INK, max_width=width)
    top = MARGIN + HEADER + HEADINGS
    for x, heading in ((MARGIN, 'query'), (MARGIN + side + QUERY_GAP, 'the most similar first')):
        canvas.text(x, top - 6, heading, size=7, color=SOFT_INK, bold=True)
    for row, query in enumerate(queries):
        place = Panel(MARGIN, top + row * (side + CAPTION + GAP), side, side)
        _draw(canvas, place, tiles, query, names, None)
        for column, other in enumerate(found[query].tolist()):
            left = MARGIN + side + QUERY_GAP + column * (side + GAP)
            _draw(canvas, place._replace(x=left), tiles, other, names,
                  RIGHT if same[query, column] else WRONG)
    return canvas.save(path)


def first_of_each(labels: torch.Tensor, wanted: Sequence[int]) -> list[int]:
    """Return the index of the first tile of each wanted label: queries that nobody chose."""
    return [int((labels == label).nonzero()[0]) for label in wanted]


def _draw(canvas: Canvas, panel: Panel, tiles: LabeledTileDataset, index: int,
          names: Sequence[str], verdict: tuple[str, str] | None) -> None:
    """Draw a tile, its class, and whether that is the query's."""
    image = tiles.source.read(index)
    mark, color = verdict or ('', INK)
    name = f'{mark} {names[int(tiles.labels[index])]}'.strip()
    inner = panel.fit(*image.shape[:2])
    canvas.image(image, inner)
    canvas.frame(inner, color, 2.0 if verdict else 0.8)
    canvas.text(panel.x, panel.y + panel.height + 10, name, size=6.5, color=color,
                bold=bool(verdict), max_width=panel.width)
