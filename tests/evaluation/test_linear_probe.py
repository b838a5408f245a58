"""linear-v1 on cached features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from openselfsup.evaluation import linear_probe, sampling
from openselfsup.evaluation.linear_probe import PENALTIES, fit_linear
from openselfsup.evaluation.logistic import principal_axes, solve


def problem(count=300, dimensions=40, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, dimensions, generator=torch.Generator().manual_seed(5))
    noise = torch.randn(count, dimensions, generator=generator)
    features = (centres[labels] + 2 * noise) * torch.logspace(0, -2, dimensions) + 1
    return features, labels


@pytest.mark.parametrize('count, dimensions, penalty, part', [
    (300, 40, 1e-3, 300), (300, 40, 1.0, 300), (60, 200, 1e-2, 60), (200, 30, 1e-5, 200),
    (300, 40, 1e-2, 50)])  # the last: axes of some tiles only
def test_the_solver_converges_to_scikit_learn(count, dimensions, penalty, part):
    features, labels = problem(count, dimensions)
    axes = principal_axes(features[:part], torch.float64)
    theta = solve(features, axes, labels, 4, torch.tensor([penalty]), tolerance=1e-8,
                  max_passes=2000)
    found = axes.classifier(theta[0]).probabilities(features)
    standard = ((features.double() - axes.mean) / axes.scale).numpy()
    reference = LogisticRegression(C=1 / (penalty * count), tol=1e-10, max_iter=20_000)
    expected = reference.fit(standard, labels.numpy()).predict_proba(standard)
    assert np.abs(found.numpy() - expected).max() < 1e-4
    weight = (axes.basis @ theta[0, :, :-1].T).numpy()
    assert np.abs(weight - reference.coef_.T).max() < 1e-3 * max(1, np.abs(weight).max())


def test_problems_side_by_side_equal_problems_alone():
    features, labels = problem()
    axes = principal_axes(features, torch.float64)
    held = torch.arange(300) % 5 == 0
    weights = torch.stack([torch.ones(300), (~held).double()])
    options = dict(tolerance=1e-8, max_passes=1000)
    both = solve(features, axes, labels, 4, torch.tensor([0.1, 0.01]), weights, **options)
    alone = solve(features, axes, labels, 4, torch.tensor([0.1]), **options)
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=1e-4)
    # Weight 0 is as good as absent.
    without = solve(features[~held], axes, labels[~held], 4, torch.tensor([0.01]), **options)
    torch.testing.assert_close(both[1:], without, atol=1e-5, rtol=1e-4)


def test_dead_and_constant_features_change_nothing(monkeypatch):
    monkeypatch.setattr(linear_probe, 'TOLERANCE', 1e-5)
    features, labels = problem()
    padded = torch.cat([features, torch.zeros(300, 3), torch.full((300, 1), 7.0)], 1)
    plain = fit_linear(features, labels, 4, 0).probabilities(features)
    found = fit_linear(padded, labels, 4, 0).probabilities(padded)
    torch.testing.assert_close(found, plain, atol=1e-3, rtol=1e-2)


def test_linear_chooses_a_sensible_penalty_and_generalises():
    features, labels = problem(400, seed=1)
    test, truth = problem(400, seed=2)
    fitted = fit_linear(features, labels, 4, 0)
    assert fitted.chosen['penalty'] in PENALTIES[1:]
    accuracies = []
    for penalty in PENALTIES:
        axes = principal_axes(features)
        classifier = axes.classifier(solve(features, axes, labels, 4,
                                           torch.tensor([penalty]))[0])
        accuracies.append(float((classifier.probabilities(test).argmax(1) == truth).float().mean()))
    found = float((fitted.probabilities(test).argmax(1) == truth).float().mean())
    assert found > max(accuracies) - 0.03 and found > min(accuracies)
    assert fitted.probabilities(test).sum(1) == pytest.approx(1.0)


def test_the_factor_of_the_logits_mends_what_the_penalty_takes():
    """A strong penalty may rank best; what is chosen then is as sure as it is right."""
    features, labels = problem(400, seed=1)
    test, truth = problem(4000, seed=2)
    fitted = fit_linear(features, labels, 4, 0)
    assert fitted.chosen['sharpness'] > 1
    axes = principal_axes(features)
    plain = axes.classifier(solve(features, axes, labels, 4,
                                  torch.tensor([fitted.chosen['penalty']]))[0])
    losses = [float(torch.nn.functional.nll_loss(found(test).log(), truth))
              for found in (fitted.probabilities, plain.probabilities)]
    assert losses[0] < losses[1]
    # A factor moves no decision.
    same = fitted.probabilities(test).argmax(1) == plain.probabilities(test).argmax(1)
    assert same.float().mean() > 0.99


def test_the_choice_depends_on_seed_and_labels_only():
    features, labels = problem()
    first, again = fit_linear(features, labels, 4, 3), fit_linear(features, labels, 4, 3)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert first.chosen == again.chosen
    assert fit_linear(features, labels, 4, 4).chosen['validation_loss'] != (
        first.chosen['validation_loss'])


def test_validation_is_by_patient(monkeypatch):
    features, labels = problem()
    patients = np.arange(300) // 10
    seen = []
    original = linear_probe.validation_split
    monkeypatch.setattr(linear_probe, 'validation_split',
                        lambda *args: seen.append(original(*args)) or seen[-1])
    fit_linear(features, labels, 4, 0, patients)
    assert len(seen) == 5
    for kept, held, how in seen:
        assert how == 'patients'
        assert not set(patients[kept]) & set(patients[held])


def test_one_tile_a_class_can_be_fitted():
    features, labels = problem(4)
    fitted = fit_linear(features, labels, 4, 0)
    assert fitted.probabilities(features).argmax(1).equal(labels) and fitted.validation_tiles == 0


def test_the_tiles_that_were_held_out_are_counted():
    """No fifth: a class gives a tile at least, patients stay whole, copies judge nothing."""
    features, labels = problem(8)
    assert fit_linear(features, labels, 4, 0).validation_tiles == 4
    copies = np.arange(8) % 4
    assert fit_linear(features, labels, 4, 0, copies=copies).validation_tiles == 0
    features, labels = problem()
    patients = np.repeat(np.arange(3), [40, 120, 140])
    assert fit_linear(features, labels, 4, 0, patients).validation_tiles == 40


def test_many_tiles_search_on_a_part(monkeypatch):
    monkeypatch.setattr(sampling, 'SEARCH_TILES', 100)
    monkeypatch.setattr(linear_probe, 'FEW_TILES', 100)
    features, labels = problem()
    fitted = fit_linear(features, labels, 4, 0)
    assert (fitted.settings['splits'], fitted.settings['search_tiles']) == (1, 100)
    monkeypatch.setattr(sampling, 'SEARCH_TILES', 60)  # fewer than twice the 40 features
    assert fit_linear(features, labels, 4, 0).settings['search_tiles'] == 80
    accuracy = (fitted.probabilities(features).argmax(1) == labels).float().mean()
    assert accuracy > 0.7
