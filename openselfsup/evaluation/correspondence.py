"""Do cells that show the same tissue have the closest features? A score that needs no labels.

Two views of a tile are crops whose place on it is known. The cell of view A at place p of the
tile should have its nearest neighbour, by features, in the cell of view B that shows p: the
percentage of correct keypoints (PCK, Yang and Ramanan, TPAMI 2013), with geometry for
annotators.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.parts import cells, normalize
from ..views import compose, determinant, invert, transform

#: Views share little or much: edges of the bins of :attr:`Correspondence.overlap`.
OVERLAPS = (0.0, 0.25, 0.5, 0.75, 1.0)
TURNS = ('upright', 'quarter_turn', 'half_turn', 'mirrored')
EDGE = 1e-3  # of a cell: places on a common edge of cells belong to all of them, though rounded


class Correspondence(NamedTuple):
    """Counts of B pairs of views; counts of several batches are joined by :func:`joined`.

    Attributes:
        counted: cells of view A whose centre lies inside view B, float32 (B,).
        right: those of them whose nearest cell of B is where geometry says, float32 (B,).
        chance: how many a guess would get right on average, float32 (B,).
        overlap: share of A's cells that are counted, in [0, 1], float32 (B,).
        turn: index into ``TURNS`` of how B is turned against A, to the nearest quarter turn;
            'mirrored' whatever its turn is. int64 (B,).
    """

    counted: Tensor
    right: Tensor
    chance: Tensor
    overlap: Tensor
    turn: Tensor


@torch.no_grad()
def correspondence(first: Tensor, second: Tensor, first_to_tile: Tensor,
                   second_to_tile: Tensor) -> Correspondence:
    """Count how often the nearest cell by features is the right one.

    A cell of A counts if its centre p lies inside B. Its nearest cell of B by cosine similarity,
    among all cells of B, is right if the centre of that cell is at most half a cell of B from p
    along both of B's axes. This is to say that it contains p: p is rarely at a cell's centre, and
    a distance that is measured along each axis accepts exactly one cell wherever p lies (but for
    p on a common edge, where all the cells that share it are right), while a radius would accept
    none or several. Of cells that are equally similar the first one is taken, so features that
    are all alike score about as a guess does.

    Args:
        first: feature maps of views A, (B, C, h, w).
        second: feature maps of views B, (B, C, h', w'), of the same backbone.
        first_to_tile: maps of views A, float32 (B, 2, 3), tile fractions;
            see :mod:`openselfsup.views.geometry`.
        second_to_tile: maps of views B, float32 (B, 2, 3).
    """
    height, width = second.shape[-2:]
    # In float64: small views of large tiles differ in the last digits of their maps.
    to_second = compose(invert(second_to_tile.double()), first_to_tile.double())
    place = transform(to_second[:, None], _centres(first))  # B x hw x 2, fractions of B
    inside = ((place >= 0) & (place <= 1)).all(-1)
    size = place.new_tensor([width, height])
    with torch.autocast(first.device.type, enabled=False):
        similarity = normalize(cells(first)) @ normalize(cells(second)).transpose(1, 2)
    chosen = _centres(second)[similarity.argmax(2)]
    right = _same_cell(chosen * size, place * size).all(-1) & inside

    columns = _same_cell(torch.arange(width).to(place) + 0.5, (place[..., :1] * width)).sum(-1)
    rows = _same_cell(torch.arange(height).to(place) + 0.5, (place[..., 1:] * height)).sum(-1)
    chance = inside * rows * columns / (height * width)

    counted = inside.float().sum(1)
    in_cells = to_second[..., :2] * size[:, None] / size.new_tensor(first.shape[:1:-1])
    return Correspondence(counted, right.float().sum(1), chance.float().sum(1),
                          counted / inside.shape[1], _turns(in_cells))


def joined(parts: Iterable[Correspondence]) -> Correspondence:
    """Return the counts of several batches as one."""
    return Correspondence(*(torch.cat(field) for field in zip(*parts)))


def summarize(found: Correspondence) -> dict[str, dict[str, float]]:
    """Return shares of right cells: overall, by overlap and by turn.

    Returns:
        For 'all', 'overlap_0.25_0.5' and the like (open at their lower end but for the first),
        and the names of ``TURNS``: ``score`` in [0, 1], ``chance``, the same of a guess, and
        ``cells``, how many it counts. Each cell weighs the same. Groups without cells are left
        out.
    """
    groups = {'all': torch.ones_like(found.turn, dtype=torch.bool)}
    for low, high in zip(OVERLAPS, OVERLAPS[1:]):
        groups[f'overlap_{low:g}_{high:g}'] = (found.overlap > low) & (found.overlap <= high)
    groups.update({name: found.turn == number for number, name in enumerate(TURNS)})
    summary = {}
    for name, members in groups.items():
        counted = float(found.counted[members].sum())
        if counted:
            summary[name] = dict(score=float(found.right[members].sum()) / counted,
                                 chance=float(found.chance[members].sum()) / counted,
                                 cells=counted)
    return summary


def _same_cell(centre: Tensor, place: Tensor) -> Tensor:
    """Return whether places lie in cells of side 1 around centres, along one axis."""
    return (centre - place).abs() <= 0.5 + EDGE


def _centres(maps: Tensor) -> Tensor:
    """Return the centres of the cells of maps (B, C, h, w), (x, y) in fractions, (hw, 2)."""
    height, width = maps.shape[-2:]
    y, x = torch.meshgrid((torch.arange(height, dtype=torch.float64) + 0.5) / height,
                          (torch.arange(width, dtype=torch.float64) + 0.5) / width, indexing='ij')
    return torch.stack([x, y], dim=-1).flatten(0, 1).to(maps.device)


def _turns(linear: Tensor) -> Tensor:
    """Return indices into ``TURNS`` of linear maps (B, 2, 2), int64 (B,)."""
    # The rotation that is closest to a map has this angle.
    angle = torch.atan2(linear[:, 1, 0] - linear[:, 0, 1], linear[:, 0, 0] + linear[:, 1, 1])
    quarters = (angle.abs() / (torch.pi / 2)).round().long()
    return torch.where(determinant(linear) < 0, TURNS.index('mirrored'), quarters)
