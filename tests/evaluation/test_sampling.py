import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.evaluation.sampling import (
    hold_out,
    labelled_fraction,
    too_small_for,
    validation_split,
    with_replacement,
)

LABELS = np.repeat([0, 1, 2], [100, 40, 3])


@settings(max_examples=30)
@given(st.floats(0.001, 1.0), st.integers(0, 2 ** 31))
def test_a_fraction_is_stratified_without_replacement(fraction, seed):
    chosen = labelled_fraction(LABELS, fraction, seed)
    assert len(set(chosen.tolist())) == len(chosen) and (np.diff(chosen) > 0).all()
    for label, count in enumerate((100, 40, 3)):
        assert (LABELS[chosen] == label).sum() == max(1, round(fraction * count))
    assert np.array_equal(chosen, labelled_fraction(LABELS, fraction, seed))


def test_seeds_differ_fractions_nest_and_all_is_all():
    assert not np.array_equal(labelled_fraction(LABELS, 0.5, 1), labelled_fraction(LABELS, 0.5, 2))
    small, large = (set(labelled_fraction(LABELS, f, 1).tolist()) for f in (0.1, 0.5))
    assert small < large
    assert np.array_equal(labelled_fraction(LABELS, 1.0, 7), np.arange(143))
    assert too_small_for(LABELS, 0.01) == [1, 2] and too_small_for(LABELS, 0.5) == []


def test_a_class_draws_the_same_whatever_the_other_classes_are():
    only = labelled_fraction(LABELS[:100], 0.1, 3)
    assert np.array_equal(only, labelled_fraction(LABELS, 0.1, 3)[:10])


@settings(max_examples=30)
@given(st.floats(0.05, 0.95), st.integers(0, 2 ** 31))
def test_hold_out_keeps_and_gives_of_every_class(share, seed):
    kept, held = hold_out(LABELS, share, seed)
    assert sorted([*kept, *held]) == list(range(143))
    assert set(LABELS[kept]) == set(LABELS[held]) == {0, 1, 2}
    assert abs((LABELS[held] == 0).sum() - share * 100) <= 1


def test_a_class_of_one_tile_keeps_it():
    kept, held = hold_out(np.array([0, 0, 0, 1]), 0.5, 0)
    assert 3 in kept and len(held) == 2


@settings(max_examples=30)
@given(st.integers(0, 2 ** 31))
def test_patients_stay_whole(seed):
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(0, 3, 300), rng.integers(0, 20, 300)
    kept, held = hold_out(labels, 0.2, seed, groups)
    assert not set(groups[kept]) & set(groups[held])
    assert len(held) and sorted([*kept, *held]) == list(range(300))
    assert 0.08 < len(held) / 300 < 0.35


def test_published_sample_repeats_tiles():
    drawn = with_replacement(10_000, 1.0, 0)
    assert len(drawn) == 10_000
    assert len(set(drawn.tolist())) / 10_000 == pytest.approx(1 - np.exp(-1), abs=0.02)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=40),
       st.floats(0.05, 0.9), st.integers(0, 99))
def test_whole_patients_leave_every_class_something_or_nothing_is_held_out(tiles, share, seed):
    labels, groups = (np.array(column) for column in zip(*tiles))
    kept, held = hold_out(labels, share, seed, groups)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert not set(groups[kept]) & set(groups[held])
    assert set(labels[kept]) == set(labels)
    possible = [g for g in set(groups) if set(labels[groups != g]) == set(labels)]
    assert bool(len(held)) == bool(possible)


def test_what_validates_is_said():
    labels, patients = np.arange(20) % 2, np.arange(20) % 5
    kept, held, how = validation_split(labels, 0.2, 0, patients)
    assert how == 'patients' and not set(patients[kept]) & set(patients[held])
    assert validation_split(labels, 0.2, 0)[2] == 'tiles'
    kept, held, how = validation_split(labels, 0.2, 0, labels)  # a patient is a class
    assert how == 'tiles' and len(held) == 4
    assert validation_split(np.arange(3), 0.2, 0)[2] == 'nothing'


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=2, max_size=40),
       st.integers(0, 99))
def test_no_copy_of_what_is_fitted_validates(tiles, seed):
    labels, copies = (np.array(column) for column in zip(*tiles))
    kept, held, _ = validation_split(labels, 0.3, seed, copies=copies)
    assert not set(copies[kept]) & set(copies[held])
