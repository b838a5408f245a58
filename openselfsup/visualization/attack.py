"""What an attacked layer does to its feature maps: clean, attacked, and the difference."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps

from .canvas import HAIRLINE, INK, SOFT_INK, Canvas, Panel

MARGIN, HEADER, GAP, GROUP_GAP = 18.0, 48.0, 4.0, 14.0


def attack_sheet(images: np.ndarray, clean: np.ndarray, attacked: np.ndarray, path: str | Path, *,
                 title: str, subtitle: str, channels: int = 3, side: float = 72.0) -> Path:
    """Draw tiles beside the feature maps of the attacked layer.

    A row shows one tile, the mean change over all channels, and the channels that change most
    (over all tiles), each before and under the attack, on one scale per channel.

    Args:
        images: N tiles, uint8 [N, H, W, 3].
        clean: feature maps, [N, C, h, w].
        attacked: the same under the attack.
        path: the PNG to write.
        title: printed on top.
        subtitle: printed below, such as the size of the attack.
        channels: how many channels to show.
        side: side of a tile on paper, in points.

    Returns:
        The path of the PNG.
    """
    change = np.abs(attacked - clean)
    shown = np.argsort(-change.mean((0, 2, 3)), kind='stable')[:channels]
    groups = [('tile',), ('mean change',)] + [(f'channel {c}', 'attacked') for c in shown]
    lefts, x = [], MARGIN
    for group in groups:
        lefts.append([x + i * (side + GAP) for i in range(len(group))])
        x = lefts[-1][-1] + side + GROUP_GAP
    canvas = Canvas(x - GROUP_GAP + MARGIN, 2 * MARGIN + HEADER + len(images) * (side + GAP))
    width = canvas.width - 2 * MARGIN
    canvas.text(MARGIN, MARGIN + 8, title, size=10, bold=True, max_width=width)
    canvas.text(MARGIN, MARGIN + 22, subtitle, size=6.5, color=SOFT_INK, max_width=width)
    for group, places in zip(groups, lefts):
        for name, left in zip(group, places):
            canvas.text(left, MARGIN + HEADER - 6, name, size=7, color=INK, bold=True,
                        max_width=side)
    mean_change = change.mean(1)  # N x h x w
    for row, image in enumerate(images):
        top = MARGIN + HEADER + row * (side + GAP)
        columns = [(image, None), (mean_change[row], (0, mean_change.max()))]
        for c in shown:
            # A percentile keeps one bright pixel from darkening the rest.
            limits = np.percentile(np.concatenate([clean[:, c], attacked[:, c]]), (1, 99))
            columns += [(clean[row, c], limits), (attacked[row, c], limits)]
        for (values, limits), left in zip(columns, [x for places in lefts for x in places]):
            panel = Panel(left, top, side, side)
            name = 'magma' if values is columns[1][0] else 'viridis'
            canvas.image(values if limits is None else _colored(values, limits, name), panel)
            canvas.frame(panel, HAIRLINE)
    return canvas.save(path)


def _colored(values: np.ndarray, limits: tuple[float, float], name: str) -> np.ndarray:
    """Return values [h, w] as colours, uint8 [h, w, 3]."""
    low, high = limits
    scaled = (values - low) / max(high - low, float(np.finfo(np.float32).tiny))
    return (colormaps[name](scaled.clip(0, 1))[..., :3] * 255).round().astype(np.uint8)
