"""A sheet of clusters: the tiles of each, as a method's cluster head grouped them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .canvas import INK, SOFT_INK, UNIT_SQUARE, Canvas, Panel, view_color

MARGIN, HEADER, GAP, LABEL = 18.0, 34.0, 4.0, 118.0


def cluster_sheet(images: np.ndarray, labels: np.ndarray, closeness: np.ndarray, clusters: int,
                  path: str | Path, *, classes: Sequence[str] | None = None,
                  title: str = 'Clusters', columns: int = 12, side: float = 40.0) -> Path:
    """Draw one row of tiles for each cluster, the largest cluster first.

    Args:
        images: N tiles, uint8 [N, H, W, 3].
        labels: cluster of each, int [N] with values in [0, clusters).
        closeness: how well each tile fits its cluster, [N]; the best are drawn, best first.
        clusters: number of clusters; empty ones get a row, too.
        path: the PNG to write.
        classes: known class of each tile, for the line that names the most frequent one. They
            took no part in the clustering.
        title: printed on top.
        columns: tiles of a row at most.
        side: side of a tile on paper, in points.

    Returns:
        The path of the PNG.
    """
    sizes = np.bincount(labels, minlength=clusters)
    columns = min(columns, int(sizes.max()))
    canvas = Canvas(2 * MARGIN + LABEL + columns * (side + GAP),
                    2 * MARGIN + HEADER + clusters * (side + GAP))
    canvas.text(MARGIN, MARGIN + 8, title, size=10, bold=True,
                max_width=canvas.width - 2 * MARGIN)
    canvas.text(MARGIN, MARGIN + 21, f'{len(labels)} tiles in {clusters} clusters, '
                f'{int((sizes == 0).sum())} of them empty; the tiles closest to each centroid '
                'come first.', size=6.5, color=SOFT_INK, max_width=canvas.width - 2 * MARGIN)
    for row, cluster in enumerate(np.argsort(-sizes, kind='stable')):
        top = MARGIN + HEADER + row * (side + GAP)
        members = np.flatnonzero(labels == cluster)
        members = members[np.argsort(-closeness[members], kind='stable')]
        names = None if classes is None else [classes[i] for i in members.tolist()]
        _write_label(canvas, Panel(MARGIN, top, LABEL - 10, side), int(cluster), len(members),
                     len(labels), names)
        for column, member in enumerate(members[:columns]):
            canvas.image(images[member], Panel(MARGIN + LABEL + column * (side + GAP), top, side,
                                               side))
    return canvas.save(path)


def _write_label(canvas: Canvas, panel: Panel, cluster: int, size: int, total: int,
                 classes: list[str] | None) -> None:
    """Write number, size and most frequent class of a cluster beside its row."""
    share = size / total
    x, y = panel.x, panel.y + 10
    canvas.text(x, y, f'cluster {cluster}', size=7.5, color=INK, bold=True)
    canvas.text(x + panel.width, y, f'{size} tiles', size=6.5, color=SOFT_INK, align='right')
    bar = Panel(x, y + 4, panel.width, 4)
    canvas.polygon(bar.at(UNIT_SQUARE), fill='#EDEDED')
    if not size:
        canvas.text(x, y + 17, 'empty', size=6.5, color=view_color(1))
        return
    canvas.polygon(bar.at(UNIT_SQUARE * (share, 1)), fill=view_color(0))
    text = f'{100 * share:.0f} % of the tiles'
    if classes:
        names, counts = np.unique(classes, return_counts=True)
        text = f'{names[counts.argmax()]} {100 * counts.max() / size:.0f} %'
    canvas.text(x, y + 17, text, size=6.5, color=SOFT_INK, max_width=panel.width)
