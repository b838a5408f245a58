"""k nearest neighbours against a brute force in plain Python."""

import math
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from openselfsup.datasets.labeled import LabeledTileDataset
from openselfsup.errors import UserError
from openselfsup.evaluation import knn
from openselfsup.evaluation.knn import knn_predict, leave_one_out_accuracy

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
    found = knn_predict(train, labels[:40], test, k, temperature)
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
    assert knn_predict(features, labels, features, k=1).tolist() == [0, 1, 0, 1]


def test_ties_of_votes_go_to_the_more_similar_class():
    bank = torch.tensor([[1., .3], [1, .2], [1, -.1], [1, -.4]])
    labels = torch.tensor([5, 2, 2, 5])
    query = torch.tensor([[1., 0]])
    assert knn_predict(bank, labels, query, k=4).item() == 2
    assert knn_predict(bank, 7 - labels, query, k=4).item() == 5
    # Votes that are not tied are not overruled: two distant neighbours beat one near.
    bank = torch.tensor([[1., 0], [-1, .1], [-1, -.1]])
    assert knn_predict(bank, torch.tensor([0, 1, 1]), query, k=3).item() == 1


def test_exactly_equal_classes_go_to_the_smaller_label():
    bank = torch.tensor([[1., .5], [1, -.5]])
    assert knn_predict(bank, torch.tensor([4, 1]), torch.tensor([[1., 0]]), k=2).item() == 1


def test_scale_does_not_matter_and_float32_does_not_decide(problem):
    features, labels = problem
    scale = 10 ** torch.linspace(-3, 3, 60).unsqueeze(1)
    plain = knn_predict(features, labels, features, 5)
    assert torch.equal(plain, knn_predict(features * scale, labels, features * 1e4, 5))
    # Two neighbours whose similarities differ by less than float32 resolves.
    bank = torch.tensor([[1., 1e-5], [1., 0]], dtype=torch.float64)
    assert knn_predict(bank, torch.tensor([0, 1]), torch.tensor([[1., 0]]), k=1).item() == 1


@pytest.mark.parametrize('k', [0, 60])
def test_wrong_k(problem, k):
    with pytest.raises(UserError, match='expected 1 to 59'):
        leave_one_out_accuracy(*problem, k=k)


def test_features_that_are_not_finite(problem):
    features, labels = problem
    features[3, 2] = torch.nan
    with pytest.raises(UserError, match='not finite'):
        knn_predict(features, labels, features, 1)


@pytest.fixture(scope='module')
def dataset():
    return LabeledTileDataset(dict(type='ImageFolder', root=str(DEMO / 'kather2016')), size=64)


def test_mean_colour_already_separates_the_demo_classes(dataset):
    colours = torch.stack([tile.float().mean((1, 2)) for tile, _ in dataset])
    accuracy = leave_one_out_accuracy(colours - colours.mean(0), dataset.labels)
    assert 0.3 < accuracy < 0.9  # chance is 0.18: the baseline every report shows


def test_no_queries_have_no_neighbours():
    found = knn_predict(torch.randn(5, 3), torch.arange(5), torch.zeros(0, 3), k=2)
    assert found.shape == (0,) and found.dtype == torch.int64
    with pytest.raises(UserError, match='neighbours'):
        leave_one_out_accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), k=1)
