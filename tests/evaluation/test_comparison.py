import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.errors import UserError
from openselfsup.evaluation.comparison import (
    compare,
    estimate,
    lone_classes,
    scored,
    stratified_resamples,
)


def tissue(seed: int = 0, tiles: int = 300, classes: int = 3, cases: int = 40):
    """Tiles of cases of one class each, and two classifiers: the second is right more often."""
    rng = np.random.default_rng(seed)
    case = np.concatenate([np.arange(cases), rng.integers(0, cases, tiles - cases)])
    labels = case % classes
    hard = rng.random(tiles)  # the same tiles are hard for both

    def answers(skill: float) -> np.ndarray:
        said = np.where(hard < skill, labels, (labels + 1) % classes)
        return np.eye(classes)[said] * 0.8 + 0.2 / classes
    return labels, case, answers(0.72), answers(0.78)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 200), st.integers(0, 99))
def test_resamples_draw_whole_cases_and_as_many_of_each_class(classes, cases, more, seed):
    rng = np.random.default_rng(seed)
    case = np.concatenate([np.arange(cases), rng.integers(0, cases, more)])
    labels = case % classes
    weights = stratified_resamples(labels, case, 20, seed)
    assert weights.shape == (21, cases + more) and (weights[0] == 1).all()
    lone = lone_classes(labels, case)
    assert lone == [c for c in range(classes) if len(np.unique(case[labels == c])) == 1]
    for one in range(cases):  # a tile comes as often as its case, if there is another of its class
        own = weights[:, case == one]
        assert one % classes in lone or (own == own[:, :1]).all()
    first = weights[:, :cases]  # one tile of each case
    for label in np.unique(labels):
        mine = labels[:cases] == label
        assert label in lone or (first[:, mine].sum(1) == mine.sum()).all()
        if label in lone:
            assert (weights[:, labels == label].sum(1) == (labels == label).sum()).all()
    assert np.array_equal(weights, stratified_resamples(labels, case, 20, seed))


def test_a_single_case_of_each_class_has_an_interval():
    labels = np.repeat([0, 1, 2], 40)
    rng = np.random.default_rng(0)

    def answers():
        return np.eye(3)[np.where(rng.random(120) < 0.75, labels, (labels + 1) % 3)]
    scores, differences = compare(labels, labels, {'a': [answers()], 'b': [answers()]})
    assert scores['a'].high - scores['a'].low > 0.05
    assert differences['a', 'b'].low < 0 < differences['a', 'b'].high


def test_the_same_answers_differ_by_nothing():
    labels, case, worse, _ = tissue()
    scores, differences = compare(labels, case, {'a': [worse], 'b': [worse.copy()]}, count=200)
    assert differences['a', 'b'].value == differences['a', 'b'].low == 0
    assert differences['a', 'b'].high == 0 and not differences['a', 'b'].above
    assert scores['a'].low < scores['a'].value < scores['a'].high


def test_pairs_tell_apart_what_two_intervals_do_not():
    labels, case, worse, better = tissue()
    scores, differences = compare(labels, case, {'worse': [worse], 'better': [better]}, count=500)
    assert scores['worse'].high > scores['better'].low  # the intervals overlap
    assert differences['better', 'worse'].above and differences['worse', 'better'].below
    one, other = differences['better', 'worse'], differences['worse', 'better']
    assert one.low == pytest.approx(-other.high) and one.value == pytest.approx(-other.value)
    assert one.value == pytest.approx(scores['better'].value - scores['worse'].value)


def test_runs_are_averaged_and_their_deviation_is_told():
    labels, case, worse, better = tissue()
    values = scored(labels, [worse, better], stratified_resamples(labels, case, 50))
    found = estimate(values)
    assert found.value == pytest.approx(values[:, 0].mean())
    assert found.sd == pytest.approx(abs(values[0, 0] - values[1, 0]) / 2 ** 0.5)
    assert np.isnan(estimate(values[:1]).sd)
    alike = estimate(values, values - 0.05)  # seeds that are lucky for both
    assert alike.value == pytest.approx(0.05) and alike.sd == pytest.approx(0, abs=1e-12)
    assert np.isnan(estimate(values, values[:1]).sd)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    held = 0
    for seed in range(60):
        labels, case, worse, better = tissue(seed, tiles=120)
        _, differences = compare(labels, case, {'a': [better], 'b': [worse]}, 'accuracy', 200)
        held += differences['a', 'b'].low <= 0.06 <= differences['a', 'b'].high
    assert held >= 50  # 57 expected; 95 % intervals of so few cases are a little short


def test_what_cannot_be_compared_is_refused():
    labels, case, worse, _ = tissue()
    with pytest.raises(UserError, match="no score is called 'acuracy'.*accuracy"):
        compare(labels, case, {'a': [worse]}, 'acuracy')
    with pytest.raises(ValueError, match='201 and 101 resamples'):
        estimate(*(scored(labels, [worse], stratified_resamples(labels, case, n))
                   for n in (200, 100)))
