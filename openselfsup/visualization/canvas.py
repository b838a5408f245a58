"""A white sheet of paper measured in points: images, lines and captions at exact places.

Every position and every size is in points (1/72 inch) from the upper left corner, font
sizes too, so a layout that has room for its captions keeps it at any resolution.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import shown
from ..files import atomic_file
from ..views import cell_polygons

DPI = 150
#: View 1 is always blue and view 2 always orange (both survive colour blindness); the
#: further views of a multi-crop recipe go on from there.
VIEW_COLORS = ('#0072C6', '#F07D00', '#00967D', '#C03A7B')
INK, SOFT_INK, HAIRLINE = '#1B1B1B', '#6B6B6B', '#D5D5D5'

UNIT_SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def view_color(view: int) -> str:
    """Return the colour that stands for a view (counted from 0) in every picture."""
    return VIEW_COLORS[view % len(VIEW_COLORS)]


class Panel(NamedTuple):
    """A rectangle of the canvas in points: upper left corner, width and height."""

    x: float
    y: float
    width: float
    height: float

    def at(self, fractions: ArrayLike) -> np.ndarray:
        """Map fractions (x, y) of the panel, shape [..., 2], to points of the canvas."""
        return np.asarray(fractions, float) * (self.width, self.height) + (self.x, self.y)

    def fit(self, height: int, width: int) -> 'Panel':
        """Return the largest centred panel inside this one with an image's aspect ratio."""
        scale = min(self.width / width, self.height / height)
        w, h = width * scale, height * scale
        return Panel(self.x + (self.width - w) / 2, self.y + (self.height - h) / 2, w, h)


class Canvas:
    """A figure of the given size in points, origin in the upper left corner, y down.

    What is drawn later lies on top.
    """

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=DPI, facecolor='white')
        self._agg = FigureCanvasAgg(self.figure)
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self._axes.axis('off')
        self._order = itertools.count(1)

    def image(self, image: np.ndarray, panel: Panel) -> None:
        """Fill a panel with an RGB image, uint8 [H, W, 3]."""
        x, y, w, h = panel
        self._axes.imshow(image, extent=(x, x + w, y + h, y), aspect='auto',
                          interpolation='antialiased', zorder=next(self._order))

    def polygon(self, points: ArrayLike, color: str | None = None, width: float = 1.0,
                fill: str | None = None, alpha: float = 1.0, casing: float = 0.0,
                clip: Panel | None = None) -> None:
        """Draw a closed polygon through points [P, 2].

        Args:
            points: its corners on the canvas.
            color: of the outline, None for no outline.
            width: of the outline.
            fill: colour inside, None for an empty polygon.
            alpha: opacity of outline and filling, in [0, 1].
            casing: width of a white rim around the outline, which keeps it visible on
                dark tissue.
            clip: draw only what lies inside this panel.
        """
        patch = Polygon(np.asarray(points, float), closed=True, fill=fill is not None,
                        facecolor=fill or 'none', edgecolor=color or 'none',
                        linewidth=width if color else 0.0, alpha=alpha, joinstyle='miter')
        if casing:
            patch.set_path_effects(_casing(width, casing))
        self._add(patch, clip)

    def line(self, points: ArrayLike, color: str, width: float = 1.0, alpha: float = 1.0,
             casing: float = 0.0, dashes: tuple[float, float] | None = None,
             clip: Panel | None = None) -> None:
        """Draw a polyline through points [P, 2].

        Args:
            points: where it runs.
            color, width, alpha, casing, clip: as in :meth:`polygon`.
            dashes: length of a dash and of the gap after it, None for a solid line with
                round ends.
        """
        patch = Polygon(np.asarray(points, float), closed=False, fill=False, edgecolor=color,
                        linewidth=width, alpha=alpha, joinstyle='round',
                        capstyle='butt' if dashes else 'round',
                        linestyle=(0, tuple(d / width for d in dashes)) if dashes else 'solid')
        if casing:
            patch.set_path_effects(_casing(width, casing))
        self._add(patch, clip)

    def frame(self, panel: Panel, color: str = HAIRLINE, width: float = 0.6) -> None:
        """Draw a border just outside a panel, so that it hides nothing of the image."""
        x, y, w, h = panel
        half = width / 2
        self._add(Rectangle((x - half, y - half), w + width, h + width, fill=False,
                            edgecolor=color, linewidth=width, joinstyle='miter'))

    def text(self, x: float, y: float, text: str, size: float = 7.0, color: str = INK,
             align: str = 'left', bold: bool = False, max_width: float | None = None) -> float:
        """Write one line of text with its baseline at ``y``.

        Args:
            x: its left end, centre or right end, as ``align`` ('left', 'center', 'right')
                says.
            y: its baseline.
            text: any characters; nothing in it is taken for mathematics.
            size: font size.
            color: of the letters.
            align: see ``x``.
            bold: in bold type.
            max_width: a longer text loses its middle to an ellipsis.

        Returns:
            The width of what was written.
        """
        text = shown(text)  # names of files need not be UTF-8
        drawn = self._axes.text(x, y, text, fontsize=size, color=color, ha=align,
                                va='baseline', parse_math=False, zorder=next(self._order),
                                fontweight='bold' if bold else 'normal')
        length = len(text)
        while max_width is not None and self._width(drawn) > max_width and length > 1:
            length -= 1
            drawn.set_text(shorten(text, length))
        return self._width(drawn)

    def save(self, path: str | Path) -> Path:
        """Write the canvas as a PNG of 150 dots per inch and return its path."""
        with atomic_file(path) as file:
            self.figure.savefig(file, dpi=DPI, format='png', metadata={'Software': None})
        return Path(path)

    def _width(self, drawn) -> float:
        return drawn.get_window_extent(self._agg.get_renderer()).width * 72 / DPI

    def _add(self, patch, clip: Panel | None = None) -> None:
        patch.set_zorder(next(self._order))
        self._axes.add_patch(patch)
        if clip is not None:
            patch.set_clip_path(Rectangle((clip.x, clip.y), clip.width, clip.height,
                                          transform=self._axes.transData))


def _casing(width: float, casing: float) -> list[patheffects.AbstractPathEffect]:
    return [patheffects.Stroke(linewidth=width + 2 * casing, foreground='white'),
            patheffects.Normal()]


def shorten(text: str, length: int) -> str:
    """Return ``text``, its middle replaced by an ellipsis if it has over ``length`` letters."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return text[:length - 1 - tail] + '…' + text[len(text) - tail:]


def outline(view_to_tile: Tensor) -> np.ndarray:
    """Corners of a view in tile fractions, [4, 2], clockwise as the view is seen.

    Args:
        view_to_tile: float [2, 3], maps (x, y, 1) of the view to (x, y) of the tile; the
            view's upper left corner comes first.
    """
    return cell_polygons(view_to_tile.detach().cpu(), 1)[0, 0].numpy()


def draw_view_frame(canvas: Canvas, panel: Panel, corners: ArrayLike, color: str,
                    width: float = 1.2, casing: float = 0.5, clip: Panel | None = None) -> None:
    """Draw a view's outline with a tick where its upper left corner is.

    The tick runs from that corner along the view's upper edge, so a glance tells a view
    that was flipped, turned or transposed.

    Args:
        canvas: where to draw.
        panel: the panel of the tile (or of the view itself).
        corners: the view's corners in fractions of the panel, [4, 2], in the order of
            :func:`outline`.
        color: of outline and tick.
        width: of the outline; the tick is three times as wide.
        casing: width of the white rim.
        clip: draw only what lies inside this panel.
    """
    start, right, _, below = points = panel.at(corners)
    canvas.polygon(points, color, width, casing=casing, clip=clip)
    along = (right - start) * 0.25
    inward = (below - start) / max(np.linalg.norm(below - start), 1e-9) * 3 * width
    canvas.polygon([start, start + along, start + along + inward, start + inward], fill=color,
                   clip=clip)


def to_image(view: Tensor | np.ndarray, normalize: dict | None = None) -> np.ndarray:
    """Turn one view into an image that can be looked at.

    Args:
        view: [3, S, S]; uint8, or floating point as the model gets it.
        normalize: ``mean`` and ``std`` per channel, for values in [0, 1], that were applied
            to a floating-point view and are undone here.

    Returns:
        uint8 [S, S, 3] RGB.

    Raises:
        ValueError: a floating-point view without ``normalize``.
    """
    view = torch.as_tensor(view).detach().cpu()
    if view.dtype != torch.uint8:
        if normalize is None:
            raise ValueError('a floating-point view can only be shown with normalize=')
        mean, std = (torch.tensor(normalize[key], dtype=torch.float32).view(3, 1, 1)
                     for key in ('mean', 'std'))
        view = ((view.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(view.permute(1, 2, 0).numpy())
