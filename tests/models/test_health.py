import pytest
import torch
import torch.nn.functional as F

from openselfsup.models import health
from openselfsup.models.algorithms.simclr import retrieval_accuracy


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


def test_dead_dimensions_are_those_that_hardly_vary():
    features = torch.randn(400, 64)
    assert health.dead_dimensions(features) == 0
    features[:, :16] *= 0.01
    features[:, 16:32] = 3
    assert health.dead_dimensions(features) == 0.5
    assert health.dead_dimensions(torch.ones(5, 8)) == health.dead_dimensions(features[:0]) == 1


def drifting(batches, turned, batch=64, dim=128):
    """Return keys, the oldest first, of an encoder whose common direction turns by an angle."""
    generator = torch.Generator().manual_seed(0)
    tiles = F.normalize(torch.randn(batches, batch, dim, generator=generator), dim=2)
    angle = torch.linspace(-turned, 0, batches)[:, None, None]
    common = torch.zeros(batches, 1, dim)
    common[..., :1], common[..., 1:2] = angle.cos(), angle.sin()
    return F.normalize(tiles + common, dim=2).flatten(0, 1)


def test_drift_is_what_age_takes_of_the_weight_of_negatives():
    assert health.key_drift(drifting(20, 0), 64, 0.2) < 0.02
    drifts = [health.key_drift(drifting(20, turned), 64, 0.2) for turned in (0.5, 1, 2, 3)]
    assert drifts == sorted(drifts) and 0.05 < drifts[0] < 0.3 and 0.8 < drifts[-1] < 1
    # By its definition, for a queue without tiles: cosines of angles.
    angle = torch.tensor([-1.2, 0])
    keys = torch.stack([angle.cos(), angle.sin()], dim=1).repeat_interleave(16, 0)
    expected = 1 - torch.exp((angle[0].cos() - 1) / 0.3)
    assert health.key_drift(keys, 16, 0.3) == pytest.approx(float(expected), rel=1e-5)


def test_what_changes_with_age_but_eases_nothing_is_no_drift():
    keys = drifting(20, 0).unflatten(0, (20, 64))
    keys[..., 5] += 0.12 * torch.linspace(-1, 1, 20)[:, None]  # easily told, and of no use
    age = torch.arange(20.).repeat_interleave(64)
    flat = F.normalize(keys, dim=2).flatten(0, 1)
    assert torch.corrcoef(torch.stack([flat[:, 5], age]))[0, 1] > 0.5
    assert health.key_drift(flat, 64, 0.2) < 0.1


def test_drift_needs_two_batches_and_looks_at_no_more_than_some():
    for rows, batch in ((0, 16), (127, 64), (200, 0), (200, 15), (40, 64)):
        assert health.key_drift(drifting(4, 3)[:rows], batch, 0.2) is None
    assert health.key_drift(torch.ones(160, 4) / 2, 16, 0.2) == 0
    whole = drifting(300, 2)
    assert health.key_drift(whole, 64, 0.2) == pytest.approx(
        float(health.key_drift(drifting(60, 2), 64, 0.2)), abs=0.05)
    random_rest = health.key_drift(whole[-100:], 64, 0.2)  # an incomplete batch is left out
    assert random_rest is None and health.key_drift(whole[-150:], 64, 0.2) < 0.05


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


def test_equal_features_are_not_told_apart():
    same = F.normalize(torch.ones(8, 4), dim=1)
    assert retrieval_accuracy(same, same) == 0
    assert retrieval_accuracy(torch.eye(8), torch.eye(8)) == 1
    assert retrieval_accuracy(torch.eye(8), torch.eye(8).roll(1, 0)) == 0


def test_no_rows_are_no_spread_no_hits_and_no_agreement():
    none, keys, label = torch.zeros(0, 8), F.normalize(torch.randn(5, 8), dim=1), torch.zeros(0)
    assert health.feature_std(none) == 0
    assert health.effective_rank(none) == 1
    for weights in (None, torch.zeros(0)):
        assert health.contrastive_accuracy(none, none, keys, weights, at_most=4) == 0
    assert health.label_agreement(label.long(), label.long(), 3) == 0


@pytest.mark.parametrize('tiles', [30, 64, 128, 256])
@pytest.mark.parametrize('cells', [1, 4, 9, 49])
def test_accuracy_of_some_rows_looks_at_all_cells_alike(tiles, cells):
    negatives = F.normalize(torch.randn(40, 8), dim=1)
    query = F.normalize(torch.randn(tiles * cells, 8), dim=1)
    positive = query.clone()
    positive[::cells] *= -1  # the first cell of each tile is wrong
    weights = torch.ones(len(query))
    for count in (None, len(query), 100_000):
        accuracy = health.contrastive_accuracy(query, positive, negatives, weights, count)
        assert accuracy == pytest.approx(1 - 1 / cells, abs=1e-5)
    some = health.contrastive_accuracy(query, positive, negatives, weights, 256)
    assert some == pytest.approx(1 - 1 / cells, abs=0.03)
    positive = query.clone()
    positive[:len(query) // 2] *= -1  # the first half of the tiles is wrong
    some = health.contrastive_accuracy(query, positive, negatives, weights, 256)
    assert some == pytest.approx(0.5, abs=0.05)
