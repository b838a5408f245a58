"""Pictures of a report as HTML that needs no other file: thumbnails, maps of features."""

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..datasets.decode import read_tile
from ..datasets.headers import TileError
from ..datasets.labeled import resize_and_crop
from ..datasets.pcam import PCam
from .canvas import DPI, HAIRLINE, INK, SOFT_INK

#: Colours and marks of classes: ten colours, and the mark changes when they repeat.
CLASS_COLORS = ('#0072C6', '#F07D00', '#00967D', '#C03A7B', '#6A51A3', '#8C6D31', '#D62728',
                '#17A3B8', '#7FA32B', '#555555')
MARKS = ('o', '^', 's', 'D')
THUMB = 112
MAP_TILES = 2000  # t-SNE of more would take minutes and show no more


def read_any(path: str) -> np.ndarray | None:
    """Return the tile that a source calls ``path``, None if it is no longer there."""
    file, _, index = path.rpartition('#')
    try:
        if file.endswith('.h5') and index.isdecimal():
            return PCam(file).read(int(index)) if Path(file).is_file() else None
        return read_tile(path)
    except TileError:
        return None


def thumbnail(path: str, alt: str, style: str = '') -> str:
    """Return a tile as an image element with its pixels inside, or a grey stand-in.

    Args:
        path: the tile.
        alt: what a reader who cannot see it should know.
        style: class of the style sheet.
    """
    tile = read_any(path)
    if tile is None:
        return f'<span class="tile gone {style}" title="{escape(path)}">not found</span>'
    tile = cv2.cvtColor(resize_and_crop(tile, THUMB, THUMB), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode('.jpg', tile, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return (f'<img class="tile {style}" width="{THUMB}" height="{THUMB}" alt="{escape(alt)}" '
            f'title="{escape(Path(path).name)}" src="data:image/jpeg;base64,'
            f'{base64.b64encode(data.tobytes()).decode()}">')


def inline_figure(figure: Figure, caption: str) -> str:
    """Return a matplotlib figure as a figure element with its pixels inside."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format='png', metadata={'Software': None})
    return inline_png(buffer.getvalue(), caption)


def inline_png(data: bytes, caption: str) -> str:
    """Return the bytes of a PNG as a figure element."""
    return (f'<figure>\n<img alt="{escape(caption)}" src="data:image/png;base64,'
            f'{base64.b64encode(data).decode()}">\n<figcaption>{escape(caption)}</figcaption>\n'
            '</figure>')


def feature_maps(features: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Return scatter plots of features (N, D) in the plane: PCA, t-SNE, and UMAP if installed.

    Args:
        features: of the test tiles.
        labels: their classes.
        classes: names of the classes.
    """
    if len(features) < 5:
        return []
    rng = np.random.default_rng(0)
    shown = np.sort(rng.permutation(len(features))[:MAP_TILES])
    x, y = features[shown].astype(np.float64), labels[shown]
    x = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    part = '' if len(shown) == len(features) else f', {len(shown):,} of {len(features):,} tiles'
    found = [_pca(x), _tsne(x)]
    if has_umap():
        found.append(_umap(x))
    return [inline_figure(_scatter(points, y, classes), f'{name}{part}.') for name, points in found]


def _pca(x: np.ndarray) -> tuple[str, np.ndarray]:
    centred = x - x.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    share = s[:2] ** 2 / max((s ** 2).sum(), 1e-12)
    return (f'Principal components: the axes hold {share[0]:.0%} and {share[1]:.0%} of the '
            'variance', u[:, :2] * s[:2])


def _tsne(x: np.ndarray) -> tuple[str, np.ndarray]:
    from sklearn.manifold import TSNE
    perplexity = min(30.0, (len(x) - 1) / 3)
    few = len(x) < 500  # then the exact gradient in one thread is the faster one
    points = TSNE(perplexity=perplexity, init='pca', random_state=0, n_jobs=1 if few else None,
                  method='exact' if few else 'barnes_hut').fit_transform(x)
    return (f't-SNE, perplexity {perplexity:.3g}: near tiles are alike, distances between '
            'groups mean nothing', points)


def has_umap() -> bool:
    """Return whether umap-learn, an extra, is installed."""
    return find_spec('umap') is not None


def _umap(x: np.ndarray) -> tuple[str, np.ndarray]:
    import umap
    neighbours = min(15, len(x) - 1)
    # A seed allows one thread; said here, or umap warns.
    points = umap.UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1).fit_transform(x)
    return f'UMAP, {neighbours} neighbours', points


def _scatter(points: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    figure = Figure(figsize=(4.6, 4.2), dpi=DPI, facecolor='white')
    axes = figure.add_axes((0.02, 0.16, 0.96, 0.82))
    size = float(np.clip(4000 / len(points), 5, 34))
    for label, name in enumerate(classes):
        x, y = points[labels == label].T
        axes.scatter(x, y, s=size, color=CLASS_COLORS[label % len(CLASS_COLORS)],
                     marker=MARKS[label // len(CLASS_COLORS) % len(MARKS)], label=name,
                     linewidths=0.3, edgecolors='white')
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=HAIRLINE, linewidth=0.6)
    legend = axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.015), ncols=5, fontsize=6.5,
                         frameon=False, handletextpad=0.1, columnspacing=0.8, labelcolor=INK)
    legend.set_in_layout(False)
    return figure


def history_figure(histories: dict[str, list[dict[str, float | None]]], key: str) -> Figure:
    """Plot one entry of the histories of protocols that train with SGD, by epoch.

    Args:
        histories: by protocol, one dict an epoch.
        key: 'loss' or 'accuracy'.
    """
    figure = Figure(figsize=(4.6, 3.2), dpi=DPI, facecolor='white')
    panel = figure.add_axes((0.1, 0.13, 0.88, 0.68))
    for i, (name, history) in enumerate(histories.items()):
        epochs, values = (np.array([h[k] for h in history], float) for k in ('epoch', key))
        panel.plot(epochs, values, label=name, linewidth=1.2,
                   color=CLASS_COLORS[i % len(CLASS_COLORS)])
    panel.spines[['top', 'right']].set_visible(False)
    panel.spines[['bottom', 'left']].set(color=HAIRLINE, linewidth=0.8)
    panel.grid(color=HAIRLINE, linewidth=0.5)
    panel.tick_params(labelsize=7, colors=SOFT_INK, length=0)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.set_xlabel('epoch', fontsize=7, color=SOFT_INK)
    panel.legend(loc='lower left', bbox_to_anchor=(0, 1.01), ncols=2, fontsize=7, frameon=False,
                 labelcolor=INK)
    return figure
