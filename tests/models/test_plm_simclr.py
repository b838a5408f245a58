"""PLM + SimCLR: its dense loss against the definition, written out cell by cell."""

import pytest
import torch
import torch.nn.functional as F
from methods import METHODS, build
from toy_model import random_batch, train_step

from openselfsup.errors import UserError
from openselfsup.views import match_cells


@pytest.mark.parametrize('joint', (False, True))
def test_the_dense_loss_is_the_definition_cell_by_cell(joint):
    method = build(METHODS['PLMSimCLR'] | dict(joint=joint, loss_lambda=0.3)).double()
    views, maps = random_batch(4, seed=3, dtype=torch.float64)
    outputs = method(views, maps)
    encoder = method.encoder_q
    if joint:
        both = encoder['neck'](encoder['backbone'](torch.stack(views, 1).flatten(0, 1)))
        grids = [both[1][i::2] for i in range(2)]
    else:
        grids = [encoder['neck'](encoder['backbone'](view))[1] for view in views]
    x = [grid.flatten(2).transpose(1, 2) for grid in grids]  # of either view, 4 x N² x 16
    pooled = [F.normalize(grid.mean((2, 3)), dim=1) for grid in grids]
    matching = match_cells(maps[:, 0], maps[:, 1], tuple(grids[0].shape[2:]))
    losses = []
    for i, match, weight in ((0, matching.match_q, matching.weight_q),
                             (1, matching.match_k, matching.weight_k)):
        for b in range(4):
            others = torch.cat([one[torch.arange(4) != b] for one in pooled])
            for cell in range(x[i].shape[1]):
                anchor = F.normalize(x[i][b, cell], dim=0)
                seen = encoder['matching_neck'].fc(match[b, cell] @ x[1 - i][b])
                logits = torch.cat([(anchor @ F.normalize(seen, dim=0))[None], others @ anchor])
                losses.append(-weight[b, cell] * (logits / 0.2).log_softmax(0)[0])
    torch.testing.assert_close(outputs['loss_dense'], 0.3 * torch.stack(losses).mean(),
                               rtol=1e-9, atol=1e-12)


def test_lambda_shares_the_losses_out():
    views, maps = random_batch(4)
    found = {}
    for share in (0., 0.25, 1.):
        torch.manual_seed(0)
        method = build(METHODS['PLMSimCLR'] | dict(loss_lambda=share))
        found[share] = method(views, maps)
    torch.testing.assert_close(found[0.25]['loss_instance'], 0.75 * found[0.]['loss_instance'])
    torch.testing.assert_close(found[0.25]['loss_dense'], 0.25 * found[1.]['loss_dense'])
    assert found[0.]['loss_dense'] == found[1.]['loss_instance'] == 0
    simclr = build(METHODS['SimCLR'])
    weights = method.encoder_q['neck'].mlp.state_dict()
    simclr.encoder_q['neck'].mlp.load_state_dict(weights)
    simclr.backbone.load_state_dict(method.backbone.state_dict())
    torch.testing.assert_close(simclr(views)['loss_instance'], found[0.]['loss_instance'])


def test_views_without_common_tissue_add_nothing():
    method = build(METHODS['PLMSimCLR'])
    views, _ = random_batch(4)
    apart = torch.tensor([[[0.4, 0, 0.], [0, 0.4, 0]], [[0.4, 0, 0.6], [0, 0.4, 0.6]]])
    outputs, gradients = train_step(method, views, apart.expand(4, 2, 2, 3))
    assert outputs['matched_fraction'] == outputs['loss_dense'] == 0
    assert gradients['encoder_q.matching_neck.fc.weight'].abs().max() == 0


def test_what_cannot_be_is_said():
    with pytest.raises(UserError, match='a number from 0 to 1'):
        build(METHODS['PLMSimCLR'] | dict(loss_lambda=1.5))
    method = build(METHODS['PLMSimCLR']).eval()
    views, maps = random_batch(1)
    with pytest.raises(UserError, match='at least 2 tiles'):
        method(views, maps)
