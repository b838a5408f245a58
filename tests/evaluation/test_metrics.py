"""Scores against scikit-learn, and intervals against brute force."""

import numpy as np
import pytest
from sklearn import metrics as sk

from openselfsup.errors import UserError
from openselfsup.evaluation import metrics
from openselfsup.evaluation.metrics import (
    SCORES,
    bootstrap,
    confusion,
    interval,
    per_class_recall,
    resamples,
    score,
)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    logits = rng.normal(size=(200, 5)).round(1)  # rounding makes ties; class 4 is never true
    logits[np.arange(200), labels] += 1.0
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(1, keepdims=True)


def reference(labels, probabilities, weights=None):
    predicted, present = probabilities.argmax(1), np.unique(labels)
    common = dict(labels=present, average='macro', zero_division=0, sample_weight=weights)
    return dict(
        accuracy=sk.accuracy_score(labels, predicted, sample_weight=weights),
        balanced_accuracy=sk.recall_score(labels, predicted, **common),
        recall=sk.recall_score(labels, predicted, **common),
        precision=sk.precision_score(labels, predicted, **common),
        macro_f1=sk.f1_score(labels, predicted, **common),
        auroc=np.mean([sk.roc_auc_score(labels == c, probabilities[:, c], sample_weight=weights)
                       for c in present]))


def test_scores_equal_scikit_learn(problem):
    found = score(*problem)
    assert set(found) == set(SCORES)
    for name, value in reference(*problem).items():
        assert found[name] == pytest.approx([value]), name
    matrix = confusion(*problem)[0]
    expected = sk.confusion_matrix(problem[0], problem[1].argmax(1), labels=range(5))
    assert matrix.tolist() == expected.tolist()
    recalls = per_class_recall(*problem)
    assert recalls[4] is None and np.mean(recalls[:4]) == pytest.approx(found['recall'][0])


def test_weights_act_as_repeated_tiles(problem):
    labels, probabilities = problem
    weights = next(resamples(200, count=3))
    assert weights.shape == (3, 200) and (weights.sum(1) == 200).all()
    found = score(labels, probabilities, weights)
    for i, row in enumerate(weights):
        for name, value in reference(labels, probabilities, row).items():
            assert found[name][i] == pytest.approx(value), name
        again = np.repeat(np.arange(200), row.astype(int))
        plain = score(labels[again], probabilities[again])
        assert found['calibration_error'][i] == pytest.approx(plain['calibration_error'][0])


def test_calibration_error_of_known_cases():
    sure = np.array([[1.0, 0.0]] * 4)
    assert score(np.array([0, 0, 1, 1]), sure)['calibration_error'] == pytest.approx([0.5])
    half = np.array([[0.75, 0.25]] * 4)
    assert score(np.array([0, 0, 0, 1]), half)['calibration_error'] == pytest.approx([0.0])


def test_bootstrap_covers_the_accuracy_and_repeats(problem):
    draws = bootstrap(*problem, count=1000)
    accuracy = score(*problem)['accuracy'][0]
    low, high = interval(draws['accuracy'])
    sd = np.sqrt(accuracy * (1 - accuracy) / 200)
    assert low < accuracy < high
    assert (high - low) == pytest.approx(2 * 1.96 * sd, rel=0.15)
    assert np.array_equal(draws['auroc'], bootstrap(*problem, count=1000)['auroc'])


def test_whole_patients_are_drawn():
    groups = np.repeat(np.arange(10), 20)
    weights = next(resamples(200, groups, count=5))
    assert all(len(set(row[groups == g])) == 1 for row in weights for g in range(10))
    # All tiles of a patient are right or wrong together: the interval must be wider.
    labels = np.zeros(200, int)
    labels[:1] = 1
    right = (groups % 2 == 0).astype(float)
    probabilities = np.stack([right, 1 - right], 1)
    tiles = interval(bootstrap(labels, probabilities)['accuracy'])
    patients = interval(bootstrap(labels, probabilities, groups)['accuracy'])
    assert patients[1] - patients[0] > 2 * (tiles[1] - tiles[0])


def test_a_head_of_too_few_classes():
    with pytest.raises(UserError, match='the head knows 3 classes, the data has 9'):
        score(np.arange(9), np.full((9, 3), 1 / 3))


def test_one_class_has_no_auroc():
    found = score(np.zeros(3, int), np.full((3, 2), 0.5))
    assert np.isnan(found['auroc'][0]) and found['accuracy'][0] == 1
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_nothing_to_score_is_said_and_never_nan():
    none = np.zeros(0, int), np.zeros((0, 3))
    with pytest.raises(UserError, match='not one tile'):
        score(*none)
    with pytest.raises(UserError, match='not one tile'):
        bootstrap(*none, count=2)
    labels, probabilities = np.array([0, 1]), np.eye(2)
    with pytest.raises(ValueError, match='all 0'):
        score(labels, probabilities, np.array([[1, 1], [0, 0]]))


def test_a_metric_takes_no_name_of_another():
    known = dict(metrics.SCORES)
    metrics.metric(metrics.accuracy)  # a module that is loaded anew

    def accuracy(tiles):
        return tiles.right.sum(1)

    with pytest.raises(UserError, match="there is a score 'accuracy' already"):
        metrics.metric(accuracy)
    assert metrics.SCORES == known
