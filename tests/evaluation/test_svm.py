"""svm-v1 and its shots, against what the published code computed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from openselfsup.evaluation.metrics import average_precision, average_precisions
from openselfsup.evaluation.sampling import draw_shots
from openselfsup.evaluation.svm import COSTS, fit_svm, train_svm, unit_rows

GOLDEN = np.load(Path(__file__).parents[1] / 'data/golden/svm_parts.npz')


def test_normalisation_costs_and_average_precision_are_the_published_ones():
    assert unit_rows(torch.from_numpy(GOLDEN['feature'])) == pytest.approx(
        GOLDEN['normalised'], abs=1e-6)
    assert list(COSTS) == pytest.approx(GOLDEN['costs'].tolist(), rel=1e-6)
    for target, score, ap in zip(GOLDEN['target'].T, GOLDEN['score'].T, GOLDEN['ap']):
        counted = target >= 0  # -1 is ignored
        assert average_precision(target[counted] == 1, score[counted]) == pytest.approx(
            float(ap), abs=1e-6)


@pytest.mark.parametrize('cost', [1.0, 0.0625])
def test_a_machine_is_the_published_one(cost):
    labels = GOLDEN[f"low_shot/k{GOLDEN['svm/low_shot_k']}"][:, 0]
    rows, counted = GOLDEN['normalised'].astype(float), labels >= 0
    machine = train_svm(rows[counted], labels[counted] == 1, cost)
    assert machine.decision_function(rows) == pytest.approx(GOLDEN[f'svm/cost{cost}/decision'],
                                                            abs=1e-3)


def test_average_precision_under_weights_is_that_of_repeated_tiles():
    rng = np.random.default_rng(0)
    positive, scores = rng.random(40) < 0.3, rng.integers(0, 12, 40) / 12.0
    weights = rng.integers(0, 4, (3, 40))
    found = average_precisions(positive, scores, weights.astype(float))
    for value, times in zip(found, weights):
        tiles = np.repeat(np.arange(40), times)
        assert value == pytest.approx(average_precision(positive[tiles], scores[tiles]))
        # Interpolated precision is never below the plain one.
        assert value >= average_precision_score(positive[tiles], scores[tiles]) - 1e-12
    order = rng.permutation(40)  # ties: the order of tiles has no say
    assert average_precision(positive[order], scores[order]) == average_precision(positive, scores)
    assert np.isnan(average_precision(np.zeros(3, bool), np.arange(3.0)))


def made(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    features = torch.randn(count, 8, generator=generator)
    features[:, :3] += 2 * torch.nn.functional.one_hot(labels, 3)
    return features, labels


def test_it_ranks_and_is_repeatable():
    (train, labels), (test, truth) = made(90, 1), made(300, 2)
    fitted, again = (fit_svm(train, labels, 3, 5) for _ in range(2))
    scores = fitted.probabilities(test)
    assert torch.equal(scores, again.probabilities(test)) and fitted.chosen == again.chosen
    assert min(average_precision((truth == c).numpy(), scores[:, c].numpy())
               for c in range(3)) > 0.85
    assert ((scores > 0) & (scores < 1)).all() and not fitted.probable
    assert fitted.chosen['validated_by'] == 'tiles' and fitted.settings['folds'] == 3
    assert fitted.validation_tiles == 90  # each tile in one fold
    assert all(cost in COSTS for cost in fitted.chosen['cost'])
    assert all(0.5 < value <= 1 for value in fitted.chosen['validation_average_precision'])


def test_a_tile_of_each_class_leaves_nothing_to_choose_by():
    train, labels = made(3, 1)
    fitted = fit_svm(train, labels, 3, 5)
    assert fitted.chosen['cost'] == [1.0] * 3 and fitted.chosen['validated_by'] == 'nothing'
    assert fitted.validation_tiles == 0


def test_copies_and_patients_stay_in_one_fold():
    """Copies of a tile in both parts of a fold would choose a cost that learns by heart."""
    generator = torch.Generator().manual_seed(0)  # no signal, and room to learn by heart
    train, labels = torch.randn(30, 200, generator=generator), torch.arange(30) % 3
    twice, both = torch.cat([train, train]), torch.cat([labels, labels])
    copies = np.tile(np.arange(30), 2)
    blind = fit_svm(twice, both, 3, 0).chosen['validation_average_precision']
    kept = fit_svm(twice, both, 3, 0, copies=copies).chosen
    assert np.mean(blind) > np.mean(kept['validation_average_precision']) + 0.1
    assert fit_svm(twice, both, 3, 0, patients=copies).chosen['validated_by'] == 'patients'


def test_shots_are_of_each_class_and_nested():
    labels = np.random.default_rng(0).integers(0, 4, 200)
    few, more, other = (draw_shots(labels, k, seed) for k, seed in ((4, 1), (16, 1), (4, 2)))
    assert np.bincount(labels[few]).tolist() == [4] * 4 and set(few) < set(more)
    assert set(few) != set(other) and len(np.unique(more)) == 64
    assert draw_shots(labels, 100, 1) is None
    for k in (1, 2, 4, 8):  # the published draws: k positives, 4 k negatives, others ignored
        for column, target in zip(GOLDEN[f'low_shot/k{k}'].T, GOLDEN['target'].T):
            assert (column == 1).sum() == k and (column == 0).sum() == 4 * k
            assert (column[column >= 0] == target[column >= 0]).all()
