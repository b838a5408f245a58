"""UnionView: a view that shows all that other views of the same tile show."""

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from ..values import Side
from .draws import Draws
from .geometry import transform
from .recipe import ViewRecipe, in_fractions
from .steps.base import Interpolation


class UnionView(ViewRecipe):
    """The smallest box that holds other views of the tile, resized, and nothing else.

    ConCL (arXiv 2207.06733) clusters such a reference view. Nothing is drawn for it: it follows
    from what was drawn for the others, whose steps, colours and flips leave it untouched.

    Args:
        of: names of the views that it holds, at least one.
        size: side of the view in pixels, or (height, width).
        interpolation: see :class:`ViewRecipe`; as published, 'bicubic'.

    Raises:
        ValueError: no view is named, or an argument is none of the above.
    """

    def __init__(self, of: Sequence[str], size: Side = 224,
                 interpolation: Interpolation = 'bicubic'):
        super().__init__(size, [], interpolation)
        if isinstance(of, str) or not of:
            raise ValueError(f'of must be a list of names of views, not {of!r}')
        self.of = tuple(of)

    def draw(self, tile_sizes: Tensor, generator: Generator | Draws) -> dict[str, Tensor]:
        """Refuse: see :meth:`around`.

        Raises:
            ValueError: always.
        """
        raise ValueError('a UnionView is drawn around other views, not by itself')

    def around(self, views: Sequence[Mapping[str, Tensor]],
               tile_sizes: Tensor) -> dict[str, Tensor]:
        """Return the parameters of the views that hold ``views``, as of :meth:`ViewRecipe.draw`.

        Args:
            views: what was drawn for each of the other views, with leading dimension B.
            tile_sizes: (height, width) of the tiles in pixels, int64 (B, 2).
        """
        corners, ends = zip(*(_box(drawn, tile_sizes) for drawn in views))
        first = torch.stack(corners).amin(0)
        size = torch.stack(ends).amax(0) - first
        to_tile = torch.eye(2, 3, dtype=torch.float64).repeat(len(first), 1, 1)
        to_tile[:, :, 2] = first.flip(-1)
        return dict(view_to_tile=in_fractions(to_tile, size, tile_sizes),
                    crop=torch.cat([first, size], 1),
                    orientation=torch.zeros(len(first), dtype=torch.int64))

    def __repr__(self) -> str:
        height, width = self.size
        return f"UnionView {height} x {width} of {', '.join(self.of)}, {self.interpolation}"


def _box(drawn: Mapping[str, Tensor], tile_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return where views begin and end on their tiles, (top, left) and (bottom, right), int64.

    Whole pixels that hold the view; of what an affine step moves beyond the tile, where the view
    mirrors it, only the tile's part counts.
    """
    if 'crop' in drawn:
        first, size = drawn['crop'].split(2, dim=1)
        return first, first + size
    height, width = drawn['frame_size'].double().unbind(1)
    zero = torch.zeros_like(width)
    x, y = torch.stack([zero, width, zero, width], 1), torch.stack([zero, zero, height, height], 1)
    corners = transform(drawn['frame_to_tile'][:, None], torch.stack([x, y], -1))  # B 4 2, x y
    # A frame off its tile leaves the nearest pixel.
    first = torch.minimum(corners.amin(1).floor().long().flip(-1).clamp_min(0), tile_sizes - 1)
    end = torch.minimum(corners.amax(1).ceil().long().flip(-1), tile_sizes)
    return first, torch.maximum(end, first + 1)
