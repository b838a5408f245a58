import pytest
import torch
import torch.nn.functional as F

from openselfsup.models import health


def test_std_is_one_for_even_directions_and_zero_for_collapse():
    assert health.feature_std(torch.randn(4000, 64)) == pytest.approx(1, abs=0.02)
    assert health.feature_std(torch.randn(1, 64).repeat(50, 1)) == pytest.approx(0, abs=1e-5)
    assert health.feature_std(torch.randn(1, 64)) == 0


def test_effective_rank_counts_dimensions_in_use():
    basis = torch.linalg.qr(torch.randn(32, 32))[0]
    assert health.effective_rank(basis[:, :20] @ torch.eye(20)) == pytest.approx(20, rel=1e-3)
    assert health.effective_rank(torch.randn(1, 8).repeat(16, 1)) == pytest.approx(1, rel=1e-2)
    assert health.effective_rank(torch.zeros(4, 8)) == 1
    values = torch.tensor([.5, .3, .2])
    expected = torch.exp(-(values * values.log()).sum())
    assert health.effective_rank(basis[:, :3] * values) == pytest.approx(float(expected), rel=1e-4)


def test_accuracy_counts_positives_above_all_negatives():
    negatives = F.normalize(torch.randn(40, 8), dim=1)
    query = F.normalize(torch.randn(30, 8), dim=1)
    positive = query.clone()
    assert health.contrastive_accuracy(query, positive, negatives) == 1
    positive[:12] *= -1
    assert health.contrastive_accuracy(query, positive, negatives) == pytest.approx(18 / 30)
    weights = torch.zeros(30)
    assert health.contrastive_accuracy(query, positive, negatives, weights) == 0
    weights[10:16] = .5
    assert health.contrastive_accuracy(query, positive, negatives, weights) == pytest.approx(4 / 6)


def test_no_rows_are_no_spread_no_hits_and_no_agreement():
    none, keys, label = torch.zeros(0, 8), F.normalize(torch.randn(5, 8), dim=1), torch.zeros(0)
    assert health.feature_std(none) == 0
    assert health.effective_rank(none) == 1
    for weights in (None, torch.zeros(0)):
        assert health.contrastive_accuracy(none, none, keys, weights, at_most=4) == 0
    assert health.label_agreement(label.long(), label.long(), 3) == 0


def test_accuracy_of_some_rows_looks_at_evenly_spaced_ones():
    negatives = F.normalize(torch.randn(40, 8), dim=1)
    query = F.normalize(torch.randn(30, 8), dim=1)
    positive = -query
    positive[::3] = query[::3]
    weights = torch.ones(30)
    for count, expected in ((10, 1), (None, 1 / 3), (30, 1 / 3), (1000, 1 / 3)):
        accuracy = health.contrastive_accuracy(query, positive, negatives, weights, count)
        assert accuracy == pytest.approx(expected)
