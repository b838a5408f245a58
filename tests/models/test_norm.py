import pytest
import torch
from torch import nn

from openselfsup.errors import UserError
from openselfsup.models import norm
from openselfsup.models.norm import SplitBN, norm_layer


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_split_bn_is_one_batch_norm_for_each_part(layout):
    split, parts = SplitBN(6, num_splits=4), [nn.BatchNorm2d(6) for _ in range(4)]
    split.weight.data.uniform_()
    for part in parts:
        part.load_state_dict(split.state_dict())
    x = torch.randn(12, 6, 5, 5).contiguous(memory_format=layout)
    direction = torch.randn(12, 6, 5, 5)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = split(ours)
    z = torch.cat([part(piece) for part, piece in zip(parts, theirs.chunk(4))])
    torch.testing.assert_close(y, z)
    assert y.is_contiguous(memory_format=layout)
    (y * direction).sum().backward()
    (z * direction).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(split.weight.grad, sum(part.weight.grad for part in parts))
    for name in ('running_mean', 'running_var'):
        mean = torch.stack([getattr(part, name) for part in parts]).mean(0)
        torch.testing.assert_close(getattr(split, name), mean)
    assert split.num_batches_tracked == 1

    plain = nn.BatchNorm2d(6).eval()
    plain.load_state_dict(split.state_dict())
    torch.testing.assert_close(split.eval()(x), plain(x))


def test_an_indivisible_batch_uses_the_largest_divisor_and_says_so_once(caplog):
    norm.largest_divisor.cache_clear()
    layer, reference = SplitBN(2, num_splits=8), SplitBN(2, num_splits=5)
    x = torch.randn(10, 2, 3, 3)
    torch.testing.assert_close(layer(x), reference(x))
    layer(x)
    warnings = [record.message for record in caplog.records]
    assert warnings == ['SplitBN: a batch of 10 does not divide into 8 parts; using 5']


def test_parts_of_one_value_are_told_by_their_number():
    one_cell = torch.randn(8, 4, 1, 1)
    with pytest.raises(UserError, match='norm_cfg.num_splits: 8 parts of 8 tiles, .* fewer parts'):
        SplitBN(4, num_splits=8)(one_cell)
    for layer, x in ((SplitBN(4, 4), one_cell), (SplitBN(4, 8).eval(), one_cell),
                     (SplitBN(4, 8), torch.randn(8, 4, 1, 2))):
        assert torch.isfinite(layer(x)).all()


@pytest.mark.parametrize('cfg, kind', [
    (dict(type='BN'), nn.BatchNorm2d), (dict(type='SyncBN'), nn.SyncBatchNorm),
    (dict(type='GN'), nn.GroupNorm), (dict(type='SplitBN', num_splits=2), SplitBN)])
def test_layers_by_name(cfg, kind):
    layer = norm_layer(cfg)(64)
    assert isinstance(layer, kind) and isinstance(layer, SplitBN) == (kind is SplitBN)
    assert [p.shape for p in layer.parameters()] == [(64,), (64,)]


def test_arguments_reach_the_layer():
    assert norm_layer(dict(type='GN', num_groups=4))(64).num_groups == 4
    assert norm_layer(dict(type='SplitBN', num_splits=2, momentum=.3))(64).num_splits == 2
    assert norm_layer(dict(type='BN', eps=.5))(64).eps == .5


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(UserError, match="BN, SyncBN, GN, SplitBN; did you mean 'SyncBN'"):
        norm_layer(dict(type='SyncBn2'))


def test_who_takes_statistics_over_parts_of_the_batch():
    def layers(kind):
        return nn.Sequential(norm_layer(dict(type=kind))(32))
    assert [norm.has_partial_statistics(layers(kind), 1) for kind in norm.NORMS] == [
        False, False, False, True]
    assert [norm.has_partial_statistics(layers(kind), 2) for kind in norm.NORMS] == [
        True, False, False, True]


@pytest.mark.parametrize('norm_cfg, words', [
    (dict(type='BN', num_splits=8), 'num_splits'),
    (dict(type='SplitBN', groups=8), 'groups'),
    (dict(type='GN', num_groups=7), 'divisible'),
])
def test_arguments_that_do_not_suit_a_norm_layer_are_one_sentence(norm_cfg, words):
    with pytest.raises(UserError, match=words):
        norm_layer(norm_cfg)(64)
