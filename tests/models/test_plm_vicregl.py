"""PLM + VICRegL: its matched cells against the definition, written out cell by cell."""

import pytest
import torch
from methods import METHODS, build
from toy_model import random_batch, train_step

from openselfsup.errors import UserError
from openselfsup.models.losses import vicreg
from openselfsup.views import match_cells


def test_the_location_terms_are_the_definition_cell_by_cell():
    method = build(METHODS['PLMVICRegL']).double()
    _, maps = random_batch(4, seed=3, dtype=torch.float64)
    x, y = torch.randn(4, 12, 16).double(), torch.randn(4, 10, 16).double()
    matching = match_cells(maps[:, 0], maps[:, 1], (3, 4), key_grid=(2, 5))
    terms, share = method.location_terms(x, y, maps[:, 0], maps[:, 1], (3, 4), (2, 5), None)
    squares, own, seen = [], [], []
    for b in range(4):
        for i in range(12):
            other = method.matching_neck.fc(matching.match_q[b, i] @ y[b])
            squares.append(matching.weight_q[b, i] * (x[b, i] - other).square().sum() / 16)
            if matching.weight_q[b, i] > 0:
                own.append(x[b, i])
                seen.append(other)
    assert 2 < len(own) < 48 and share == pytest.approx(len(own) / 48)
    _, variance, covariance = vicreg(torch.stack(own), torch.stack(seen))
    torch.testing.assert_close(torch.stack(terms), torch.stack([
        sum(squares) / 48, variance, covariance]))


def test_the_same_crop_twice_is_vicreg_of_all_its_cells():
    method = build(METHODS['PLMVICRegL'] | dict(matching_neck=dict(
        type='MatchingNeck', channels=16, linear=False)))
    same = torch.tensor([[0.5, 0, 0.2], [0, 0.5, 0.1]]).expand(3, 2, 3)
    x, y = torch.randn(3, 49, 16), torch.randn(3, 49, 16)
    terms, share = method.location_terms(x, y, same, same, (7, 7), (7, 7), None)
    assert share == 1
    torch.testing.assert_close(terms, vicreg(x.flatten(0, 1), y.flatten(0, 1)))


def test_views_without_common_tissue_add_nothing():
    method = build(METHODS['PLMVICRegL'])
    views, _ = random_batch(4)
    apart = torch.tensor([[[0.4, 0, 0.], [0, 0.4, 0]], [[0.4, 0, 0.6], [0, 0.4, 0.6]]])
    outputs, gradients = train_step(method, views, apart.expand(4, 2, 2, 3))
    assert outputs['matched_fraction'] == 0
    assert gradients['matching_neck.fc.weight'].abs().max() == 0
    terms, _ = method.location_terms(*torch.randn(2, 4, 49, 16), *apart[:, None].expand(2, 4, 2, 3),
                                     (7, 7), (7, 7), None)
    assert [term.item() for term in terms] == [0, 0, 0]


def test_parts_that_do_not_fit_are_named():
    row = METHODS['PLMVICRegL']
    with pytest.raises(UserError, match='takes 8 channels, cells are projected to 16'):
        build({**row, 'matching_neck': dict(type='MatchingNeck', channels=8)})
    with pytest.raises(UserError, match='without its matching_neck'):
        build({**row, 'matching_neck': None})
    assert build({**row, 'alpha': 1.}).matching_neck is None
