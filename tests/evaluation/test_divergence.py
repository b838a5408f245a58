"""What diverges is no result; what was finished is never lost; NaN never becomes a number."""

import json

import numpy as np
import pytest
import torch

from openselfsup.errors import UserError
from openselfsup.evaluation import evaluate, finetune, frozen, linear_probe, networks
from openselfsup.evaluation.classifier import TrainSettings
from openselfsup.evaluation.data import find_data
from openselfsup.evaluation.knn import fit_knn
from openselfsup.evaluation.linear_probe import fit_linear
from openselfsup.evaluation.logistic import gradient_left, principal_axes, solve
from openselfsup.evaluation.metrics import bootstrap, score
from openselfsup.evaluation.results import read_results
from openselfsup.evaluation.settings import AUGMENTED, FINETUNE, KNN, LINEAR, EvaluationSettings
from openselfsup.evaluation.table import results_table
from openselfsup.visualization.comparison import write_comparison
from openselfsup.visualization.report import write_report

FOUR = (LINEAR, KNN, AUGMENTED, FINETUNE)


def evaluation(split, weights, out, **changes):
    said = []
    train = TrainSettings(**dict(epochs=2, batch_size=16, image_size=32, workers=1)
                          | changes.pop('train', {}))
    settings = EvaluationSettings(out, model_path=str(weights), train=train, resamples=10,
                                  say=said.append, baselines=False, **changes)
    return evaluate.Evaluation(settings, find_data(str(split))), said


@pytest.fixture(scope='module')
def diverged(split, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp('diverged') / 'out'
    run, said = evaluation(split, weights, out, protocols=FOUR, train=dict(lr=1e6),
                           seeds=(1, 2))
    return out, run.run(), said


def test_a_training_that_diverges_has_no_score_and_loses_no_row(diverged):
    out, results, said = diverged
    written = read_results(out)
    assert [row.protocol for row in written.rows] == 2 * list(FOUR)
    for row in written.rows:
        values = {v for score in row.scores.values() for v in score.values()}
        if row.protocol in ('linear-augmented-v1', 'finetune-v1'):
            assert row.diverged in (1, 2) and values == {None}
            assert set(row.recall_by_class) == {None} and not np.any(row.confusion)
            line = f'{row.protocol} on checkpoint, 100 % labelled, seed {row.seed}: diverged at ' \
                   f'epoch {row.diverged} (learning rate 1e+06); it has no score.'
            assert f'WARNING: {line}' in written.notes and f'WARNING: {line}' in said
        else:
            assert row.diverged is None and None not in values
    lines = {line.protocol: line for line in written.summary}
    assert lines['finetune-v1'].diverged == [1, 2]
    assert lines['finetune-v1'].scores['accuracy'] == dict(mean=None, low=None, high=None, sd=None)
    assert lines['linear-v1'].diverged == []


def test_the_table_and_the_pages_say_so(diverged, tmp_path):
    out, results, _ = diverged
    table = results_table(results, ['accuracy', 'auroc'])
    assert table.count('diverged (seed 1, 2)') == 2
    page = write_report(out).read_text()
    assert 'finetune-v1: checkpoint diverged (seed 1, 2)' in page
    assert 'diverged at epoch' in page
    page = write_comparison(dict(a=out, b=out), tmp_path / 'all.html').read_text()
    assert 'diverged (seed 1, 2)' in page and 'a: finetune-v1 on checkpoint' in page


def test_one_seed_that_diverges_takes_the_mean_with_it(split, weights, tmp_path, monkeypatch):
    original = evaluate.train_honestly

    def one_fails(*args, seed, **kwargs):
        trained = original(*args, seed=seed, **kwargs)
        trained.diverged = 1 if seed == 2 else None
        return trained

    monkeypatch.setattr(evaluate, 'train_honestly', one_fails)
    run, _ = evaluation(split, weights, tmp_path, protocols=('linear-augmented-v1',),
                        seeds=(1, 2), train=dict(epochs=1))
    line = run.run().summary[-1]
    assert line.seeds == [1, 2] and line.diverged == [2] and line.scores['accuracy']['mean'] is None


def test_a_healthy_training_does_not_diverge(split, weights):
    data = find_data(str(split))
    backbone = networks.from_checkpoint('resnet18', weights).backbone
    settings = TrainSettings(epochs=2, batch_size=16, image_size=32, workers=1)
    assert finetune.train_honestly(backbone, 512, data.train, 8, settings, 1, True).diverged is None
    assert finetune._exploded([dict(epoch=1, loss=30.0), dict(epoch=2, loss=1.0)], 2, 8) is None
    assert finetune._exploded([dict(epoch=1, loss=1.0), dict(epoch=2, loss=30.0)], 2, 8) == 2


@pytest.mark.parametrize('stop', [KeyboardInterrupt, RuntimeError])
def test_what_was_finished_survives_whatever_ends_the_run(split, weights, tmp_path, monkeypatch,
                                                          stop):
    def fail(*args, **kwargs):
        raise stop
    monkeypatch.setattr(evaluate, 'train_honestly', fail)
    run, _ = evaluation(split, weights, tmp_path, protocols=FOUR)
    with pytest.raises(stop):
        run.run()
    found = read_results(tmp_path)
    assert [row.protocol for row in found.rows] == ['linear-v1', 'knn-v1']
    assert found.notes[0] == f'{evaluate.UNFINISHED}: it holds 2 rows.'
    assert 'not finished, or was interrupted' in write_report(tmp_path).read_text()
    # A second try that stops earlier keeps what the first one had.
    monkeypatch.setattr(frozen, 'fit_linear', fail)
    run, _ = evaluation(split, weights, tmp_path, protocols=FOUR)
    with pytest.raises(stop):
        run.run()
    assert len(read_results(tmp_path).rows) == 2


def test_pictures_of_an_earlier_evaluation_are_not_shown(split, weights, tmp_path):
    run, _ = evaluation(split, weights, tmp_path)
    run.run()
    assert 'Nearest neighbours</h2>' in write_report(tmp_path).read_text()
    found = json.loads((tmp_path / 'results.json').read_text())
    (tmp_path / 'results.json').write_text(json.dumps(found | dict(created='2000-01-01T00:00:00')))
    assert 'Nearest neighbours</h2>' not in write_report(tmp_path).read_text()
    (tmp_path / 'arrays.npz').write_bytes(b'PK\x03\x04 cut')
    with pytest.raises(UserError, match='arrays.npz: this file is damaged'):
        write_report(tmp_path)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_nan_is_never_scored_fitted_or_a_neighbour(value):
    labels = np.arange(12) % 3
    probabilities = np.full((12, 3), 1 / 3)
    probabilities[4] = value
    for call in (score, bootstrap):
        with pytest.raises(UserError, match='the probabilities of 1 of 12 tiles are not finite'):
            call(labels, probabilities)
    features = torch.randn(12, 5)
    features[7, 2] = value
    with pytest.raises(UserError, match='not finite for 1 of 12 tiles'):
        fit_linear(features, torch.from_numpy(labels), 3, 0)
    fitted = fit_knn(torch.randn(12, 5), torch.from_numpy(labels), 3)
    with pytest.raises(UserError, match='not finite for 1 of 12 tiles'):
        fitted.probabilities(features)


def test_a_collapsed_backbone_is_fitted_and_knows_nothing():
    labels = torch.arange(12) % 3
    for width in (4, 40):
        found = fit_linear(torch.full((12, width), 0.7), labels, 3, 0)
        assert found.probabilities(torch.full((2, width), 0.7)).allclose(
            torch.full((2, 3), 1 / 3, dtype=torch.float64), atol=1e-3)


def test_a_backbone_of_nan_features_is_named(split, weights, tmp_path, monkeypatch):
    run, _ = evaluation(split, weights, tmp_path)
    original = networks.from_checkpoint

    def overflowing(*args):
        network = original(*args)
        network.backbone.layer1[0].bn1.weight.data *= 1e38
        network.backbone.layer4[1].bn2.weight.data *= 1e38
        return network

    monkeypatch.setattr(networks, 'from_checkpoint', overflowing)
    with pytest.raises(UserError, match='the features of checkpoint are not finite for'):
        run.run()


def test_a_solver_that_stopped_early_is_told(split, weights, tmp_path, monkeypatch):
    features, labels = torch.randn(60, 8), torch.arange(60) % 3
    axes = principal_axes(features)
    problem = features, axes, labels, 3, torch.tensor([1e-3])
    assert gradient_left(*problem, solve(*problem)) < 1e-3
    assert gradient_left(*problem, solve(*problem, max_passes=2)) > 1e-2
    monkeypatch.setattr(linear_probe, 'gradient_left', lambda *args: 0.5)
    run, said = evaluation(split, weights, tmp_path, protocols=('linear-v1',))
    assert any('the solver stopped at a gradient of 0.5' in note for note in run.run().notes)


def test_results_of_what_diverged_are_json(diverged):
    text = (diverged[0] / 'results.json').read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(name))
