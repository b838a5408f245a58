from types import SimpleNamespace

import pytest
import torch
from torch import nn

from openselfsup.visualization import cell_grid, draw_batch, match_views

CROPS = [((0.1, 0.1, 0.6, 0.6), False), ((0.3, 0.35, 0.6, 0.6), True)]


class Backbone(nn.Module):
    """Strides of 32, batch normalisation and a random draw in training, as a real one may."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 32, stride=32)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        first = self.norm(self.conv(x))
        return [first, self.drop(first)]


@pytest.mark.parametrize('size, grid', [((96, 96), (3, 3)), ((224, 128), (7, 4))])
def test_the_grid_is_that_of_the_last_feature_map(size, grid):
    assert cell_grid(Backbone(), size) == grid


@pytest.mark.parametrize('matched', [True, False])
def test_the_first_batch_is_drawn_without_touching_the_run(tmp_path, make_batch, source, matched):
    backbone = Backbone()
    backbone.norm.eval()  # a frozen norm stays frozen
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    dataset = SimpleNamespace(source=source, geometry='axis_aligned', view_names=['q', 'k'])
    draw_batch(make_batch([CROPS] * 2), dataset, tmp_path,
               [cell_grid(backbone, (96, 96))] * 2 if matched else None)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    assert backbone.training and not backbone.norm.training
    names = {'views.png', 'matches.png'} if matched else {'views.png'}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_views_are_matched_in_their_own_geometry(make_batch):
    batch = make_batch([CROPS])
    straight = match_views(batch, (3, 3), 'axis_aligned')
    turned = match_views(batch, (3, 3), 'affine')
    torch.testing.assert_close(straight.match_q, turned.match_q, rtol=1e-4, atol=1e-5)
    # cell 0 of the query covers 0.1-0.3 of the tile, the crop of the key begins at 0.3
    assert straight.weight_q[0, 0] == 0 and straight.weight_q[0, 8] == pytest.approx(1)
