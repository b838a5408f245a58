"""Whole evaluations on the bundled tiles."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from openselfsup.datasets import LabeledTileDataset, Source, ViewLoader
from openselfsup.errors import UserError
from openselfsup.evaluation import classifier, evaluate, finetune, networks, results_form
from openselfsup.evaluation.baselines import Renormalised
from openselfsup.evaluation.classifier import TrainSettings
from openselfsup.evaluation.data import Part, find_data
from openselfsup.evaluation.metrics import SCORES
from openselfsup.evaluation.results import Results, Row, Summary, read_results
from openselfsup.evaluation.settings import (
    AUGMENTED,
    FINETUNE,
    KNN,
    LINEAR,
    PROTOCOLS,
    EvaluationSettings,
)
from openselfsup.training.normalization import IMAGENET_MEAN, IMAGENET_STD
from openselfsup.visualization.report import write_report

ROOT = Path(__file__).parents[2]
FOUR = (LINEAR, KNN, AUGMENTED, FINETUNE)  # the others: test_benchmarks.py
QUICK = TrainSettings(epochs=2, batch_size=16, image_size=32, lr=0.01, workers=2)


def run(tmp_path, split, weights, **changes):
    """Evaluate at 32 px and return the results and what was said."""
    said = []
    options = dict(model_path=str(weights), train=QUICK, resamples=50, say=said.append) | changes
    data = find_data(str(split)) if isinstance(split, type(tmp_path)) else split
    evaluation = evaluate.Evaluation(EvaluationSettings(tmp_path / 'out', **options), data)
    return evaluation.run(), said


@pytest.fixture(scope='module')
def everything(tmp_path_factory, split, weights):
    """Four protocols, two seeds, baselines."""
    folder = tmp_path_factory.mktemp('everything')
    results, said = run(folder, split, weights, protocols=FOUR, seeds=(1, 2),
                        paper_compat=True)
    return folder / 'out', results, said


def test_every_row_is_there_with_its_baselines(everything):
    out, results, said = everything
    kinds = {(row.protocol, row.features) for row in results.rows}
    for protocol in ('linear-v1', 'knn-v1'):
        for features in ('checkpoint', 'random init', 'colour mean / sd', 'colour histogram'):
            assert (protocol, features) in kinds
    assert {'linear-augmented-v1', 'finetune-v1', 'paper-compat (linear-augmented)',
            'paper-compat (finetune)'} <= {protocol for protocol, _ in kinds}
    assert len(results.rows) == 2 * (2 * 4 + 4)
    for row in results.rows:
        assert row.honest != row.protocol.startswith('paper-compat')
        assert row.test_tiles == sum(map(sum, row.confusion)) == 15
        trained = row.protocol not in ('linear-v1', 'knn-v1')
        assert [epoch['epoch'] for epoch in row.history] == ([1, 2] if trained else [])
        for name in SCORES:
            score = row.scores[name]
            assert 0 <= score['low'] <= score['high'] <= 1 and 0 <= score['value'] <= 1
    assert any('120/120' in line or '122/122' in line for line in said)


def test_the_summary_is_mean_and_deviation_over_seeds(everything):
    _, results, _ = everything
    for line in results.summary:
        values = [row.scores['accuracy']['value'] for row in results.rows
                  if (row.protocol, row.features, row.fraction)
                  == (line.protocol, line.features, line.fraction)]
        assert line.seeds == [1, 2] and len(values) == 2
        assert line.scores['accuracy']['mean'] == pytest.approx(np.mean(values))
        assert line.scores['accuracy']['sd'] == pytest.approx(np.std(values, ddof=1))


def test_the_report_shows_how_training_went(everything):
    text = write_report(everything[0]).read_text()
    assert 'How fine-tuning and linear evaluation went</h2>' in text


def test_results_are_read_back(everything):
    out, results, _ = everything
    again = read_results(out)
    assert again.rows[0].scores.keys() == results.rows[0].scores.keys()
    assert again.summary[-1].protocol == results.summary[-1].protocol
    found = json.loads((out / 'results.json').read_text())
    assert found['schema'] == results_form.VERSION and len(found['model']['sha256']) == 64


def test_every_field_of_the_results_is_documented():
    text = (ROOT / 'docs/evaluation.md').read_text()
    for part in (Results, Row, Summary):
        for field in dataclasses.fields(part):
            assert f'`{field.name}`' in text, field.name
    for name in (*SCORES, *PROTOCOLS):
        assert f'`{name}`' in text, name


def test_features_are_cached_until_something_changes(everything, tmp_path, split, weights,
                                                     monkeypatch):
    folder = tmp_path / 'out'
    shutil.copytree(everything[0], folder)
    (folder / 'results.json').unlink()  # of another request, which a folder keeps
    options = dict(seeds=(1, 2))
    calls = []
    original = evaluate.extract_all.__globals__['extract_features']
    monkeypatch.setitem(evaluate.extract_all.__globals__, 'extract_features',
                        lambda *a, **k: calls.append(1) or original(*a, **k))
    results, _ = run(tmp_path, split, weights, **options)
    assert not calls
    assert results.rows[0].scores == everything[1].rows[0].scores
    (folder / 'results.json').unlink()
    (folder / 'features.npz').write_bytes(b'PK\x03\x04 cut')  # a damaged cache is none
    again, _ = run(tmp_path, split, weights, **options)
    assert len(calls) == 2 and again.rows[0].scores == results.rows[0].scores
    (folder / 'results.json').unlink()
    run(tmp_path, split, weights, train=TrainSettings(image_size=33), **options)
    assert len(calls) == 4


def permuted(split):
    """The same data, the labels of the test shuffled."""
    data = find_data(str(split))
    rng = np.random.default_rng(3)
    data.test = Part(data.test, np.arange(len(data.test)))
    data.test.labels = rng.permutation(data.test.labels)
    return data


def test_test_labels_cannot_influence_any_honest_protocol(split, weights, tmp_path, monkeypatch):
    """What is chosen, and every prediction, stays the same when test labels are permuted."""
    chosen = []
    for name, data in (('true', find_data(str(split))), ('permuted', permuted(split))):
        models = []
        monkeypatch.setattr(evaluate, 'predict', lambda model, *rest, kept=models: (
            kept.append(model), classifier.predict(model, *rest))[1])
        evaluation = evaluate.Evaluation(EvaluationSettings(
            tmp_path / name, model_path=str(weights), protocols=FOUR, seeds=(1,),
            train=QUICK, resamples=10, say=lambda text: None), data)
        rows = evaluation.run().rows
        chosen.append(([row.chosen for row in rows], evaluation.probabilities,
                       [model.state_dict() for model in models],
                       [row.scores['accuracy']['value'] for row in rows]))
    (first, first_said, first_models, first_accuracy), (second, second_said, second_models,
                                                        second_accuracy) = chosen
    assert first == second and len(first) == 10 and len(first_models) == 2
    for i, said in first_said.items():
        assert np.array_equal(said, second_said[i])
    for a, b in zip(first_models, second_models):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert first_accuracy != second_accuracy  # the labels did change


def test_paper_compat_does_look_at_the_test(split, weights):
    """The test above can fail: the published linear protocol follows the test labels."""
    data, other = find_data(str(split)), permuted(split)
    backbone = networks.from_checkpoint('resnet18', weights).backbone
    settings = TrainSettings(epochs=6, batch_size=8, image_size=32, lr=0.01, workers=2)
    found = [finetune.train_as_published(backbone, 512, d.train, d.test, 1.0, 8, settings, 1, True)
             for d in (data, other)]
    losses = [[h['loss'] for h in trained.history] for trained in found]
    assert losses[0] == losses[1]  # training is the same ...
    accuracies = [[h['accuracy'] for h in trained.history] for trained in found]
    for trained, accuracy in zip(found, accuracies):  # ... but the epoch is the test's best
        assert trained.chosen['selection_accuracy'] == max(accuracy)
    assert accuracies[0] != accuracies[1]


def test_paper_compat_holds_one_tile_out_at_least(split, weights):
    data = find_data(str(split))
    backbone = networks.from_checkpoint('resnet18', weights).backbone
    settings = TrainSettings(epochs=1, batch_size=8, image_size=64, workers=2,
                             validation_split=0.01)
    assert settings.validation_split * len(data.train) < 1
    trained = finetune.train_as_published(backbone, 512, data.train, data.test, 0.5, 8, settings,
                                          1, frozen=False)
    assert trained.validation_tiles == 1
    assert trained.train_tiles == (len(data.train) - 1) // 2


class Shaped(Source):
    """Noise: tiles that are wide, high and square by turns, of two classes."""

    def __init__(self, count):
        rng = np.random.default_rng(0)
        self.tiles = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in itertools.islice(
            itertools.cycle([(32, 64), (51, 32), (32, 32)]), count)]
        self.labels, self.classes = np.arange(count) % 2, ['a', 'b']

    def __len__(self):
        return len(self.tiles)

    def read(self, index):
        return self.tiles[index]

    def path(self, index):
        return f'tile {index}'


@pytest.mark.parametrize('honest', [True, False])
def test_training_sees_the_part_of_a_tile_that_is_tested(weights, monkeypatch, honest):
    loaders = []
    monkeypatch.setattr(finetune, 'strong_view', lambda size: dict(
        type='ViewRecipe', size=size, steps={}))
    monkeypatch.setattr(finetune, 'ViewLoader', lambda *args, **options: loaders.append(
        ViewLoader(*args, **options)) or loaders[-1])
    backbone = networks.from_checkpoint('resnet18', weights).backbone
    tiles, settings = Shaped(18), TrainSettings(epochs=1, batch_size=16, image_size=32, workers=0)
    if honest:
        finetune.train_honestly(backbone, 512, Part(tiles, np.arange(18)), 2, settings, 1,
                                frozen=True)
    else:
        finetune.train_as_published(backbone, 512, tiles, tiles, 1.0, 2, settings, 1, frozen=True)
    batch = loaders[0].make_batch(0, 0)
    dataset = LabeledTileDataset(tiles, 32)
    tested = {tiles.path(i): dataset[i][0] for i in range(len(tiles))}
    for view, index in zip(batch['views'][0], batch['index'].tolist()):
        assert torch.equal(view, tested[loaders[0].dataset.source.path(index)])


@pytest.mark.parametrize('honest', [True, False])
def test_frozen_means_frozen(split, weights, honest):
    data = find_data(str(split))
    backbone = networks.from_checkpoint('resnet18', weights).backbone
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    if honest:
        part = Part(data.train, np.arange(len(data.train)))
        trained = finetune.train_honestly(backbone, 512, part, 8, QUICK, 1, frozen=True)
    else:
        trained = finetune.train_as_published(backbone, 512, data.train, data.test, 1.0, 8, QUICK,
                                              1, frozen=True)
    after = trained.model.backbone.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    if honest:
        assert not moved
    else:  # published: BatchNorm statistics move although nothing is trained
        assert moved and all('running' in key or 'num_batches' in key for key in moved)
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


def test_finetuning_moves_the_backbone_and_stops_early(split, weights):
    data = find_data(str(split))
    backbone = networks.from_checkpoint('resnet18', weights).backbone
    part = Part(data.train, np.arange(len(data.train)))
    settings = TrainSettings(epochs=30, batch_size=16, image_size=32, lr=0.0, workers=2,
                             early_stop=1)
    trained = finetune.train_honestly(backbone, 512, part, 8, settings, 1, frozen=False)
    assert len(trained.history) - trained.chosen['epoch'] == 1 and len(trained.history) < 30
    settings = TrainSettings(epochs=1, batch_size=16, image_size=32, lr=0.01, workers=2)
    trained = finetune.train_honestly(backbone, 512, part, 8, settings, 1, frozen=False)
    assert not torch.equal(trained.model.backbone.conv1.weight, backbone.conv1.weight)


def test_the_head_learns(split, weights):
    data = find_data(str(split))
    backbone = networks.from_checkpoint('resnet18', weights).backbone
    part = Part(data.train, np.arange(len(data.train)))
    part.labels = (part.labels == data.classes.index('EMPTY')).astype(np.int64)
    settings = TrainSettings(epochs=5, batch_size=8, image_size=32, lr=0.1, workers=2)
    trained = finetune.train_honestly(backbone, 512, part, 2, settings, 1, frozen=True)
    losses = [h['loss'] for h in trained.history]
    assert min(losses[1:]) < 0.8 * losses[0]


def test_a_head_of_other_classes_is_said_and_left_out(split, weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    state['fc.weight'], state['fc.bias'] = state['fc.weight'][:3], state['fc.bias'][:3]
    torch.save(state, tmp_path / 'three.pth')
    results, said = run(tmp_path, split, tmp_path / 'three.pth', baselines=False,
                        protocols=('linear-v1',))
    sentence = ('The head in the checkpoint knows 3 classes and the data has 8: it is left out, '
                'heads are trained anew.')
    assert sentence in said and sentence in results.notes


def test_the_normalisation_of_our_checkpoints_is_used(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    config = "normalize = dict(\n    mean=[0.7, 0.5, 0.7], std=[0.2, 0.2, 0.2])\nepochs = 3\n"
    torch.save(dict(state_dict={f'encoder_q.backbone.{k}': v for k, v in state.items()
                                if not k.startswith('fc')}, meta=dict(config=config)),
               tmp_path / 'ours.pth')
    network = networks.from_checkpoint('resnet18', tmp_path / 'ours.pth')
    assert network.wanted.mean == (0.7, 0.5, 0.7) and network.wanted.std == (0.2, 0.2, 0.2)
    assert network.head_classes is None


def test_a_normalisation_that_is_given_is_used_and_said(split, weights, tmp_path):
    (tmp_path / 'given').mkdir()
    plain, _ = run(tmp_path, split, weights, protocols=(LINEAR,), baselines=False)
    given, said = run(tmp_path / 'given', split, weights, protocols=(LINEAR,), baselines=False,
                      normalize=((0.5,) * 3, (0.1,) * 3))
    sentence = ('Images are normalised with mean 0.5, 0.5, 0.5 and std 0.1, 0.1, 0.1: as given.')
    assert sentence in said and sentence in given.notes
    assert any("ImageNet's, as nothing says another" in note for note in plain.notes)
    features = [np.load(folder / 'out/arrays.npz') for folder in (tmp_path, tmp_path / 'given')]
    assert not np.allclose(*(one['features'] for one in features))


@pytest.mark.parametrize('way', ['cache', 'option'])
def test_imagenet_weights_at_hand_are_a_baseline(split, weights, tmp_path, monkeypatch, way):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    folder = tmp_path / 'torch/hub/checkpoints' if way == 'cache' else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(weights, folder / 'resnet18-f37072fd.pth')
    given = str(folder / 'resnet18-f37072fd.pth') if way == 'option' else None
    results, said = run(tmp_path, split, weights, imagenet=given, protocols=('linear-v1',))
    scores = {row.features: row.scores for row in results.rows}
    assert scores['ImageNet init'] == scores['checkpoint']  # they are the same weights here
    assert sum('tensors matched' in line for line in said) == 2


def test_a_baseline_gets_the_input_it_was_trained_with(weights):
    backbone = networks.from_checkpoint('resnet18', weights).backbone
    ours, theirs = ((0.7, 0.5, 0.7), (0.1, 0.2, 0.3)), (IMAGENET_MEAN, IMAGENET_STD)
    pixels = torch.rand(2, 3, 32, 32)
    first, second = ((pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
                     for mean, std in (ours, theirs))
    with torch.no_grad():
        torch.testing.assert_close(Renormalised(backbone, ours, theirs)(first)[-1],
                                   backbone(second)[-1], atol=1e-4, rtol=1e-4)


def test_too_small_a_fraction_is_said(split, weights, tmp_path):
    results, said = run(tmp_path, split, weights, fractions=(0.01,), protocols=('linear-v1',))
    assert any('is less than one tile of ADIPOSE' in line for line in said)
    assert (results.rows[0].train_tiles, results.rows[0].validation_tiles) == (8, 0)


def test_numbers_out_of_range_are_said_all_at_once(tmp_path):
    train = TrainSettings(epochs=0, validation_split=1.0, batch_size=0)
    with pytest.raises(UserError) as caught:
        EvaluationSettings(tmp_path, fractions=(0.5, 50.0, 0.0), train=train, knn_k=0).check()
    said = str(caught.value)
    for words in ('--labeled_train: 50 is out of range; expected a share', '--labeled_train: 0 is',
                  '--ft_epoch: 0', '--validation_split: 1', '--batch_size: 0', '--knn_k: 0'):
        assert words in said
    assert '0.5' not in said
    EvaluationSettings(tmp_path).check()


def test_wrong_names(split, weights, tmp_path):
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        run(tmp_path, split, weights, model_name='resnet8')
    with pytest.raises(UserError, match="no protocol is called.*did you mean 'linear-v1'"):
        run(tmp_path, split, weights, protocols=('linear',))
    with pytest.raises(UserError, match='ResNet-18, the model is a ResNet-34'):
        run(tmp_path, split, weights, model_name='resnet34')
