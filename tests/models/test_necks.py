import pytest
import torch

from openselfsup.models.necks.batch_norm import NonLinearNeckSimCLR, NonLinearNeckV0
from openselfsup.models.necks.matching import AttentionMatchingNeck, MatchingNeck
from openselfsup.models.necks.projection import DenseCLNeck, LinearNeck, NonLinearNeck
from openselfsup.registry import NECKS


def test_projections_take_the_last_of_the_maps():
    maps = [torch.randn(2, 4, 8, 8), torch.randn(2, 6, 3, 5)]
    pooled = maps[-1].mean((2, 3))
    linear, nonlinear = LinearNeck(6, 5), NonLinearNeck(6, 7, 5)
    torch.testing.assert_close(linear(maps), linear.fc(pooled))
    torch.testing.assert_close(nonlinear(maps), nonlinear.mlp[2](nonlinear.mlp[0](pooled).relu()))
    assert nonlinear.mlp[0].out_features == 7 and NonLinearNeck(6).mlp[0].out_features == 6


def test_the_dense_neck_projects_each_cell_and_their_mean():
    neck, feature_map = DenseCLNeck(6, 7, 5), torch.randn(2, 6, 3, 4)
    whole, grid, pooled = neck([feature_map])
    torch.testing.assert_close(whole, neck.mlp(feature_map.mean((2, 3))))
    torch.testing.assert_close(grid[:, :, 1, 2], neck.mlp2(feature_map[:, :, 1:2, 2:3])[..., 0, 0])
    torch.testing.assert_close(pooled, grid.flatten(2).mean(2))
    assert whole.shape == (2, 5)


def random_match(rows, columns):
    match = torch.rand(2, rows, columns) * (torch.rand(2, rows, columns) < 0.5)
    match[:, 0] = 0  # a cell that nothing overlaps
    match[:, 1] = torch.eye(columns)[2]
    return match / match.sum(2, keepdim=True).clamp_min(1e-9)


def test_the_matching_neck_averages_and_then_maps():
    x, match = torch.randn(2, 4, 5), random_match(3, 4)
    neck = MatchingNeck(5)
    expected = [neck.fc(sum(match[0, 2, j] * x[0, j] for j in range(4))), neck.fc.bias]
    torch.testing.assert_close(neck(x, match)[0, 2], expected[0])
    torch.testing.assert_close(neck(x, match)[0, 0], expected[1])
    plain = MatchingNeck(5, linear=False)
    assert not list(plain.parameters())
    torch.testing.assert_close(plain(x, match)[:, 1], x[:, 2])


def test_attention_is_a_softmax_over_the_overlapping_cells():
    neck, x, match = AttentionMatchingNeck(5, 3), torch.randn(2, 4, 5), random_match(3, 4)
    scores = neck.attention(x.transpose(1, 2))[0, 0]
    chosen = match[0, 2] > 0
    expected = torch.softmax(scores[chosen], 0) @ x[0, chosen]
    torch.testing.assert_close(neck(x, match)[0, 2], neck.fc(expected))
    torch.testing.assert_close(neck(x, match)[0, 0], neck.fc.bias)


def test_attention_survives_scores_that_overflow_exp():
    neck, match = AttentionMatchingNeck(5, 3), random_match(3, 4)
    with torch.no_grad():
        neck.attention[2].weight.fill_(1e4)
        neck.attention[2].bias.fill_(1e6)
    x = torch.randn(2, 4, 5, requires_grad=True)
    y = neck(x, match)
    y.square().sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in neck.parameters())


@pytest.mark.parametrize('cfg, names', [
    (dict(type='NonLinearNeckV0', hid_channels=5), 'fc0 bn0 fc1'),
    (dict(type='NonLinearNeckV1', hid_channels=5), 'mlp.0 mlp.2'),
    (dict(type='NonLinearNeckV2', hid_channels=5), 'mlp.0 mlp.1 mlp.3'),
    (dict(type='NonLinearNeckSimCLR', hid_channels=5, num_layers=3), 'fc0 bn0 fc1 bn1 fc2 bn2'),
    (dict(type='NonLinearNeckSimCLR', hid_channels=5, with_last_bn=False), 'fc0 bn0 fc1'),
    (dict(type='RelativeLocNeck'), 'fc bn')])
def test_published_necks_hold_their_tensors_under_published_names(cfg, names):
    neck = NECKS.build(dict(cfg, in_channels=6, out_channels=4))
    assert list(dict.fromkeys(key.rpartition('.')[0] for key in neck.state_dict())) == names.split()
    channels = 12 if cfg['type'] == 'RelativeLocNeck' else 6
    assert neck([torch.randn(3, channels, 2, 2)]).shape == (3, 4)


def test_a_neck_without_pooling_takes_cells_or_vectors():
    x = torch.randn(3, 2, 2, 2)
    for name in ('LinearNeck', 'NonLinearNeckV1', 'NonLinearNeckV2', 'NonLinearNeckSimCLR'):
        hidden = {} if name == 'LinearNeck' else dict(hid_channels=5)
        neck = NECKS.build(dict(type=name, in_channels=8, out_channels=4, with_avg_pool=False,
                                **hidden)).eval()
        torch.testing.assert_close(neck([x]), neck([x.flatten(1)]))
    assert NECKS.build(dict(type='AvgPoolNeck'))([x]).equal(x.mean((2, 3)))


def test_the_features_of_odc_are_not_negative_and_dropped_in_training_only():
    neck, x = NonLinearNeckV0(6, 400, 4), [torch.randn(8, 6, 2, 2)]
    assert neck.bn0.momentum == 0.001 and neck.bn0.weight is None
    assert (neck(x) >= 0).all() and not neck(x).equal(neck(x))
    assert neck.eval()(x).equal(neck(x))
    assert not NonLinearNeckV0(6, 5, 4, dropout=0.).drop.p
    assert NonLinearNeckSimCLR(6, 5, 4).fc0.bias is None
