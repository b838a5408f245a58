import cv2
import numpy as np
import pytest
import torch
from colour_backbone import PLAIN, MeanColours

from openselfsup.datasets import ImageFolder, LabeledTileDataset
from openselfsup.errors import UserError
from openselfsup.visualization import neighbour_sheet
from openselfsup.visualization.neighbours import (
    GAP,
    HEADER,
    HEADINGS,
    MARGIN,
    QUERY_GAP,
    RIGHT,
    WRONG,
    first_of_each,
)

SIDE = 58.0
TOP = MARGIN + HEADER + HEADINGS
REDS, BLUE = [(200, 0, 0), (200, 20, 0), (200, 90, 0)], (20, 0, 200)


@pytest.fixture
def tiles(tmp_path):
    """Class A: two alike reds. Class B: an orange, nearer to these than to its blue."""
    for name, colours in dict(A=REDS[:2], B=[REDS[2], BLUE]).items():
        (tmp_path / 'tiles' / name).mkdir(parents=True)
        for number, colour in enumerate(colours):
            image = np.full((32, 32, 3), colour[::-1], np.uint8)
            cv2.imwrite(str(tmp_path / 'tiles' / name / f'{number}.png'), image)
    return LabeledTileDataset(ImageFolder(str(tmp_path / 'tiles')), size=32)


def test_neighbours_stand_in_order_and_are_marked_by_class(tmp_path, tiles, picture):
    seen = picture(neighbour_sheet(MeanColours(), tiles, [0], tmp_path / 'n.png', k=3, **PLAIN))
    lefts = [MARGIN] + [MARGIN + SIDE + QUERY_GAP + c * (SIDE + GAP) for c in range(3)]
    for left, colour in zip(lefts, [*REDS, BLUE]):
        assert abs(seen.at(left + SIDE / 2, TOP + SIDE / 2) - colour).max() <= 2
    for left, (_, colour) in zip(lefts[1:], [RIGHT, WRONG, WRONG]):
        assert seen.is_color(left - 1, TOP + SIDE / 2, colour)
        assert seen.is_color(left + SIDE / 2, TOP + SIDE + 1, colour)
    assert not any(seen.is_color(lefts[0] - 1, TOP + SIDE / 2, c) for _, c in (RIGHT, WRONG))


def test_the_share_of_all_tiles_is_written(tmp_path, tiles, monkeypatch):
    written = []
    monkeypatch.setattr('openselfsup.visualization.canvas.Canvas.text',
                        lambda self, x, y, text, **style: written.append(text) or 0.0)
    neighbour_sheet(MeanColours(), tiles, [0], tmp_path / 'n.png', k=1, **PLAIN)
    assert 'Of the 1 nearest of all 4 tiles, 50 % are of the same class.' in written
    assert written[-2:] == ['A', '✓ A']  # the query, and its neighbour with a mark
    with pytest.raises(UserError, match='4 neighbours are asked for'):
        neighbour_sheet(MeanColours(), tiles, [0], tmp_path / 'n.png', k=4)


def test_queries_are_the_first_tiles_of_their_classes():
    assert first_of_each(torch.tensor([1, 0, 1, 2, 0]), [2, 0]) == [3, 1]
