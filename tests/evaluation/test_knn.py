"""k nearest neighbours against a brute force in plain Python."""

import math
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from openselfsup.datasets.labeled import LabeledTileDataset
from openselfsup.errors import UserError
from openselfsup.evaluation import knn
from openselfsup.evaluation.knn import (
    fit_knn,
    leave_one_out_accuracy,
    nearest_tiles,
    vote_shares,
)

DEMO = Path(__file__).parents[2] / 'data/demo'


def brute_force(bank, labels, query, k, temperature, without=None):
    """Classify one query, with Python's floats."""
    def cosine(a, b):
        a, b = a.tolist(), b.tolist()
        return (sum(x * y for x, y in zip(a, b))
                / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b)))

    near = sorted(((cosine(query, row), i) for i, row in enumerate(bank) if i != without),
                  reverse=True)[:k]
    votes, sums = defaultdict(float), defaultdict(float)
    for similarity, i in near:
        weight = 1.0 if temperature is None else math.exp(similarity / temperature)
        votes[int(labels[i])] += weight
        sums[int(labels[i])] += similarity
    return max(sorted(votes), key=lambda label: (votes[label], sums[label]))


def predicted(bank, labels, queries, k, temperature=None):
    """Classify queries by their nearest tiles of the bank, in float64."""
    classes, label = labels.unique(return_inverse=True)
    near = nearest_tiles(bank.double(), queries, k)
    return classes[vote_shares(*near, label, len(classes), temperature).argmax(1)]


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([3, 7, 8])[torch.randint(3, (60,), generator=generator)]
    centres = torch.randn(9, 5, generator=generator)
    features = centres[labels] + 1.5 * torch.randn(60, 5, generator=generator)
    return features, labels


@pytest.mark.parametrize('temperature', [None, 0.07])
@pytest.mark.parametrize('k', [1, 2, 3, 8, 40])
def test_predictions_equal_brute_force(problem, k, temperature, monkeypatch):
    monkeypatch.setattr(knn, '_ROWS', 7)  # several blocks, the last one short
    features, labels = problem
    train, test = features[:40], features[40:]
    found = predicted(train, labels[:40], test, k, temperature)
    expected = [brute_force(train, labels[:40], query, k, temperature) for query in test]
    assert found.dtype == torch.int64 and found.tolist() == expected


@pytest.mark.parametrize('temperature', [None, 0.07])
@pytest.mark.parametrize('k', [1, 3, 6])
def test_leave_one_out_equals_brute_force(problem, k, temperature, monkeypatch):
    monkeypatch.setattr(knn, '_ROWS', 7)
    features, labels = problem
    found = leave_one_out_accuracy(features, labels, k, temperature)
    expected = [brute_force(features, labels, row, k, temperature, without=i) == labels[i]
                for i, row in enumerate(features)]
    assert found == pytest.approx(sum(expected) / 60)
    assert 1 / 3 < found < 1  # the problem is neither hopeless nor trivial


def test_a_tile_is_no_neighbour_of_itself():
    features = torch.tensor([[1., 0], [1, .1], [0, 1], [.1, 1]])
    labels = torch.tensor([0, 1, 0, 1])
    assert leave_one_out_accuracy(features, labels, k=1) == 0
    assert predicted(features, labels, features, k=1).tolist() == [0, 1, 0, 1]


def test_ties_of_votes_go_to_the_more_similar_class():
    bank = torch.tensor([[1., .3], [1, .2], [1, -.1], [1, -.4]])
    labels = torch.tensor([5, 2, 2, 5])
    query = torch.tensor([[1., 0]])
    assert predicted(bank, labels, query, k=4).item() == 2
    assert predicted(bank, 7 - labels, query, k=4).item() == 5
    # Votes that are not tied are not overruled: two distant neighbours beat one near.
    bank = torch.tensor([[1., 0], [-1, .1], [-1, -.1]])
    assert predicted(bank, torch.tensor([0, 1, 1]), query, k=3).item() == 1


def test_exactly_equal_classes_go_to_the_smaller_label():
    bank = torch.tensor([[1., .5], [1, -.5]])
    assert predicted(bank, torch.tensor([4, 1]), torch.tensor([[1., 0]]), k=2).item() == 1


def test_scale_does_not_matter_and_float32_does_not_decide(problem):
    features, labels = problem
    scale = 10 ** torch.linspace(-3, 3, 60).unsqueeze(1)
    plain = predicted(features, labels, features, 5)
    assert torch.equal(plain, predicted(features * scale, labels, features * 1e4, 5))
    # Two neighbours whose similarities differ by less than float32 resolves.
    bank = torch.tensor([[1., 1e-5], [1., 0]], dtype=torch.float64)
    assert predicted(bank, torch.tensor([0, 1]), torch.tensor([[1., 0]]), k=1).item() == 1


@pytest.mark.parametrize('k', [0, 60])
def test_wrong_k(problem, k):
    with pytest.raises(UserError, match='expected 1 to 59'):
        leave_one_out_accuracy(*problem, k=k)


def test_features_that_are_not_finite(problem):
    features, labels = problem
    features[3, 2] = torch.nan
    with pytest.raises(UserError, match='not finite'):
        predicted(features, labels, features, 1)


def test_mean_colour_already_separates_the_demo_classes():
    dataset = LabeledTileDataset(dict(type='ImageFolder', root=str(DEMO / 'kather2016')), size=64)
    colours = torch.stack([tile.float().mean((1, 2)) for tile, _ in dataset])
    accuracy = leave_one_out_accuracy(colours - colours.mean(0), dataset.labels)
    assert 0.3 < accuracy < 0.9  # chance is 0.18: the baseline every report shows


def test_no_queries_have_no_neighbours():
    found = predicted(torch.randn(5, 3), torch.arange(5), torch.zeros(0, 3), k=2)
    assert found.shape == (0,) and found.dtype == torch.int64
    with pytest.raises(UserError, match='neighbours'):
        leave_one_out_accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), k=1)


@pytest.mark.parametrize('backend', ['faiss', 'torch'])
def test_neighbours_equal_brute_force(problem, backend):
    bank, queries = problem[0][:40], problem[0][40:]
    similarity, found = nearest_tiles(bank, queries, 7, backend)
    every = torch.nn.functional.cosine_similarity(
        queries.double().unsqueeze(1), bank.double().unsqueeze(0), dim=2)
    expected = every.topk(7)
    torch.testing.assert_close(similarity.double(), expected.values, atol=1e-5, rtol=0)
    assert torch.equal(found, expected.indices)


@pytest.mark.parametrize('temperature', [None, 0.07])
def test_shares_are_those_of_votes_and_fitted_on_them(problem, temperature):
    features, labels = problem
    bank, queries, label = features[:40], features[40:], labels[:40] - 3
    shares = vote_shares(*nearest_tiles(bank, queries, 6), label, 6, temperature)
    assert shares.shape == (20, 6) and shares.sum(1) == pytest.approx(1.0)
    expected = [brute_force(bank, label, query, 6, temperature) for query in queries]
    assert shares.argmax(1).tolist() == expected
    if temperature:
        fitted = fit_knn(bank, label, 6, k=6)
        torch.testing.assert_close(fitted.probabilities(queries), shares)


def test_k_is_bounded_by_the_tiles_of_a_class():
    fitted = fit_knn(torch.randn(12, 5), torch.arange(12) % 4, 4, k=20)
    assert fitted.settings['k'] == 3


def test_tiles_of_one_group_are_no_neighbours():
    draw = torch.Generator().manual_seed(0)
    bank, groups = torch.randn(40, 5, generator=draw), torch.randint(6, (40,), generator=draw)
    others = 40 - int(groups.bincount().max())
    similarity, found = nearest_tiles(bank, None, others, groups=groups)
    assert (groups[found] != groups[:, None]).all() and similarity.isfinite().all()
    for i in range(40):
        alone = nearest_tiles(bank[groups != groups[i]], bank[i:i + 1], 3, 'torch')[0][0]
        assert torch.allclose(similarity[i, :3], alone)
    with pytest.raises(UserError, match=f'expected 1 to {others}, the number of other tiles'):
        nearest_tiles(bank, None, others + 1, groups=groups)


@pytest.mark.parametrize('backend', ['faiss', 'torch'])
def test_impossible_neighbours(problem, backend):
    features = problem[0][:10]
    with pytest.raises(UserError, match='expected 1 to 10'):
        nearest_tiles(features, features, 11, backend)
    with pytest.raises(UserError, match='not finite'):
        nearest_tiles(features, features * torch.nan, 1, backend)


def test_one_standardised_tile_gives_its_class_and_no_nan():
    fitted = fit_knn(torch.ones(1, 3), torch.tensor([1]), 2, standardise=True)
    assert torch.equal(fitted.probabilities(torch.randn(4, 3)).argmax(1), torch.ones(4).long())
