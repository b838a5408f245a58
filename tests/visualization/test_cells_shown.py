"""Pictures of dense features: components as colours, and places that are alike."""

import cv2
import numpy as np
import pytest
import torch
from colour_backbone import PLAIN, MeanColours

from openselfsup.models.backbones.resnet import ResNet
from openselfsup.visualization import component_sheet, likeness_sheet
from openselfsup.visualization.cells import cell_features
from openselfsup.visualization.components import component_colours, principal_components
from openselfsup.visualization.likes import MARK, cell_at, likeness


class Arrays:
    """Images in memory."""

    def __init__(self, *images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def read(self, index):
        return self.images[index]

    def path(self, index):
        return f'image {index}'


def halves(left, right, side=64):
    image = np.zeros((side, side, 3), np.uint8)
    image[:, :side // 2], image[:, side // 2:] = left, right
    return image


RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)
SOURCE = Arrays(halves(RED, GREEN), halves(BLUE, RED), halves(GREEN, BLUE))


@pytest.mark.parametrize('scale', [1.0, 2.0])
def test_cells_are_those_of_the_enlarged_image_without_its_rim(scale):
    found = cell_features(MeanColours(), SOURCE, [1, 0], 'all', scale, **PLAIN)
    cells = int(64 * scale / 16)
    assert [tuple(f.shape) for f in found] == [(3, cells, cells)] * 2
    for features, (left, right) in zip(found, ((BLUE, RED), (RED, GREEN))):
        for part, colour in ((features[..., :cells // 2 - 1], left),
                             (features[..., cells // 2 + 1:], right)):
            unit = torch.tensor(colour) / torch.tensor(colour).float().norm()
            torch.testing.assert_close(part, unit[:, None, None].expand_as(part),
                                       atol=0.02, rtol=0)


def test_cells_of_14_pixels_are_those_of_the_image():
    pixels = np.full((61, 83, 3), 250, np.uint8)
    pixels[:, :4] = pixels[:, -4:] = pixels[:4] = pixels[-4:] = RED
    found, = cell_features(MeanColours(14), Arrays(pixels), [0], '1', 1.0, **PLAIN)
    assert found.shape == (3, 4, 6)
    inner = found[:, 1:-1, 1:-1]
    torch.testing.assert_close(inner, inner[:, :1, :1].expand_as(inner), atol=1e-3, rtol=0)
    for edge in (found[0, 0], found[0, -1], found[0, :, 0], found[0, :, -1]):
        assert (edge > inner.max() + 0.01).all()


def test_the_zeros_beyond_an_image_do_not_reach_its_cells():
    torch.manual_seed(0)
    grey = Arrays(np.full((64, 64, 3), 120, np.uint8))
    found, = cell_features(ResNet(18), grey, [0], '2', 1.0)
    assert found.shape == (128, 8, 8)
    torch.testing.assert_close(found, found[:, :1, :1].expand_as(found), atol=1e-4, rtol=0)


def test_components_are_ordered_and_do_not_fall_with_the_guide():
    torch.manual_seed(0)
    axes = torch.linalg.qr(torch.randn(5, 5)).Q
    values = torch.randn(400, 5) * torch.tensor([9.0, 4.0, 2.0, 0.1, 0.1])
    cells = values @ axes.T + 3
    guide = values[:, 0] + values[:, 1] - values[:, 2]
    found, shares = principal_components(cells, guide)
    for component, sign in enumerate((1, 1, -1)):
        pair = torch.stack([found[:, component], sign * values[:, component].double()])
        assert torch.corrcoef(pair)[0, 1] > 0.99
    assert shares.tolist() == sorted(shares.tolist(), reverse=True)
    assert 0.99 < shares.sum() <= 1
    mirrored, _ = principal_components(-cells, guide)
    torch.testing.assert_close(mirrored, found)
    few, _ = principal_components(cells[:, :2], guide)
    assert few.shape == (400, 3) and not few[:, 2].any()


def test_one_colour_means_one_kind_of_cell_across_images():
    features = cell_features(MeanColours(), SOURCE, range(3), 'all', 1.0, **PLAIN)
    colours, shares = component_colours(features, SOURCE.images)
    assert [c.shape for c in colours] == [(4, 4, 3)] * 3 and colours[0].dtype == np.uint8
    red, green, blue = (c.astype(int) for c in
                        (colours[0][0, 0], colours[0][0, 3], colours[1][0, 0]))
    assert np.array_equal(colours[1][0, 3], red) and np.array_equal(colours[2][0, 0], green)
    assert min(abs(a - b).max() for a, b in ((red, green), (red, blue), (green, blue))) > 60
    assert shares.sum() > 0.999


def test_component_sheet_has_a_row_for_tissue_and_for_each_backbone(tmp_path):
    backbones = {'one': MeanColours(), 'two': MeanColours()}
    paths = [component_sheet(some, SOURCE, [0, 2], tmp_path / f'{len(some)}.png', layers='all',
                             **PLAIN)
             for some in (dict(one=MeanColours()), backbones)]
    first, second = (cv2.imread(str(path)).shape for path in paths)
    assert second[0] - first[0] == pytest.approx(107 * 150 / 72, abs=2) and second[1] == first[1]


@pytest.mark.parametrize(('place', 'cell'), [((0, 0), (0, 0)), ((1, 1), (3, 1)),
                                             ((0.6, 0.3), (1, 1))])
def test_a_place_is_in_one_cell(place, cell):
    assert cell_at(place, (4, 2)) == cell


def test_a_place_is_most_like_its_own_kind():
    features = cell_features(MeanColours(), SOURCE, range(3), 'all', 1.0, **PLAIN)
    maps = likeness(features, (0.1, 0.5))  # red
    assert maps[0][2, 0] == pytest.approx(1)
    assert maps[1][:, 3] == pytest.approx(np.ones(4), abs=1e-4)
    assert max(maps[0][:, 3].max(), maps[1][:, 0].max(), maps[2].max()) < 0


def test_the_best_cell_of_each_further_image_is_marked(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr('openselfsup.visualization.canvas.Canvas.polygon',
                        lambda self, points, color, *rest, **style: drawn.append((points, color)))
    path = likeness_sheet({'colours': MeanColours()}, SOURCE, [0, 1], (0.05, 0.5),
                          tmp_path / 'likes.png', layers='all', scale=1.0, side=80.0, **PLAIN)
    assert path.exists() and {color for _, color in drawn} == {MARK}
    sides = [points[1, 0] - points[0, 0] for points, _ in drawn]
    assert sides == pytest.approx([20] * 3)  # of a grid of four, on 80 points
    best, tissue, asked = (points[0] for points, _ in drawn)
    assert best[0] - asked[0] == pytest.approx(87 + 40)  # the first red cell of the next image
    assert asked[0] == tissue[0] and asked[1] - tissue[1] == pytest.approx(87)
