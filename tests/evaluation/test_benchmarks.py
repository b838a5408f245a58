"""The benchmarks of OpenSelfSup as protocols: stages, support vectors, shots, semi-supervised."""

import numpy as np
import pytest
import torch
from test_evaluate import QUICK, permuted, run

from openselfsup.cli.evaluate import RANKED_BY
from openselfsup.errors import UserError
from openselfsup.evaluation import evaluate, finetune, frozen, networks, notes, svm
from openselfsup.evaluation.data import Part, find_data
from openselfsup.evaluation.metrics import RANKING, SCORES
from openselfsup.evaluation.results import read_results
from openselfsup.evaluation.settings import LOW_SHOT, SEMI, STAGES, SVM, EvaluationSettings
from openselfsup.evaluation.stages import Stages
from openselfsup.evaluation.table import results_table
from openselfsup.visualization.comparison import write_comparison
from openselfsup.visualization.report import write_report

ALL = (STAGES, SVM, LOW_SHOT, SEMI)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Three costs and two numbers of shots."""
    monkeypatch.setattr(svm, 'COSTS', (1.0, 0.0625, 2.0 ** -10))
    for module in (frozen, notes):
        monkeypatch.setattr(module, 'SHOTS', (1, 2, 64))


def test_every_protocol_has_its_rows_and_no_test_label_has_a_say(split, weights, tmp_path):
    found = []
    for name, data in (('true', find_data(str(split))), ('permuted', permuted(split))):
        evaluation = evaluate.Evaluation(EvaluationSettings(
            tmp_path / name, model_path=str(weights), protocols=ALL, seeds=(1,), train=QUICK,
            head_lr=(1.0, 10.0), resamples=10, say=lambda text: None), data)
        found.append((evaluation.run(), evaluation.probabilities))
    (results, said), (others, other_said) = found
    assert [row.chosen for row in results.rows] == [row.chosen for row in others.rows]
    assert all(np.array_equal(found, other_said[i]) for i, found in said.items())
    lines = {}
    for row in results.rows:
        lines.setdefault(row.protocol, []).append(row)
    networks_only = ['checkpoint', 'random init']
    everything = ['checkpoint', 'colour histogram', 'colour mean / sd', 'random init']
    stages = [f'{STAGES} (stage {i})' for i in range(5)]
    assert list(lines) == ['linear-v1', *stages, SVM, f'{LOW_SHOT} (1 of each class)',
                           f'{LOW_SHOT} (2 of each class)', SEMI]
    for protocol, rows in lines.items():
        assert sorted(row.features for row in rows) == (
            ['checkpoint'] if protocol == SEMI else networks_only if protocol in stages
            else everything)
        for row in rows:
            ranks_only = protocol.startswith('svm')
            for name in SCORES:
                value = row.scores[name]['value']
                assert (value is None) == (ranks_only and name not in RANKING)
    # The last stage of the network is what linear-v1 classifies.
    assert lines[stages[4]][0].scores == lines['linear-v1'][0].scores
    # Every class gives a tile to the split, every tile is in a fold, one of a class in none.
    for protocol, tiles in (('linear-v1', 8), (stages[4], 8), (SVM, lines[SVM][0].train_tiles),
                            (f'{LOW_SHOT} (1 of each class)', 0),
                            (f'{LOW_SHOT} (2 of each class)', 16)):
        assert {row.validation_tiles for row in lines[protocol]} == {tiles}
    assert lines[f'{LOW_SHOT} (2 of each class)'][0].train_tiles == 16
    assert lines[SEMI][0].chosen['head_lr'] in (1.0, 10.0)
    assert lines[SEMI][0].settings['head_lr_tried'] == [1.0, 10.0]
    assert any('has 3 labelled tiles, so that 64 of each class' in note for note in results.notes)
    shown(tmp_path, results)


def shown(tmp_path, results):
    """The tables, the report and the comparison take lines without an accuracy."""
    table = results_table(results, ['accuracy', RANKED_BY]).splitlines()
    line = next(line for line in table if line.startswith('svm-v1 ') and 'checkpoint' in line)
    assert ' -  ' in line and not line.endswith('- - -') and 'mAP' in table[0]
    again = read_results(tmp_path / 'true')
    assert again.summary[-1].protocol == SEMI
    text = write_report(tmp_path / 'true').read_text()
    assert 'svm-v1' in text and 'mAP' in text
    text = write_comparison({'a': tmp_path / 'true', 'b': tmp_path / 'permuted'},
                            tmp_path / 'all.html').read_text()
    assert 'mAP, %' in text and 'Accuracy, %' in text


def test_five_stages_of_a_resnet_and_their_widths(weights):
    network = networks.from_checkpoint('resnet18', weights).backbone
    stages, images = Stages(network), torch.rand(2, 3, 64, 64)
    assert stages.widths == [64, 64, 128, 256, 512]
    found = stages(images)[0].flatten(1).split(stages.widths, 1)
    assert torch.equal(found[4], network(images)[-1].mean((2, 3)))
    stem = network.relu(network.bn1(network.conv1(images)))
    assert torch.equal(found[0], stem.mean((2, 3)))
    assert torch.equal(found[1], network.layer1(network.maxpool(stem)).mean((2, 3)))
    assert network.out_indices == (4,)


def test_the_head_has_a_rate_of_its_own_and_validation_chooses_it(split, weights):
    data = find_data(str(split))
    part = Part(data.train, np.arange(len(data.train)))
    backbone = networks.from_checkpoint('resnet18', weights).backbone
    settings = (backbone, 512, part, 8, QUICK, 1)
    slow, fast = (finetune.train_honestly(*settings, frozen=False, head_lr=multiple)
                  for multiple in (1e-6, 50.0))
    start = finetune.TileClassifier(backbone, 512, 8, 1)
    moved = [float((one.model.fc.weight - start.fc.weight).detach().abs().max())
             for one in (slow, fast)]
    assert moved[0] < 1e-5 < 1e-3 < moved[1]
    assert not torch.equal(slow.model.backbone.conv1.weight, backbone.conv1.weight)
    best = finetune.train_heads(*settings, head_lr=(1e-6, 50.0))
    ranks = [(one.chosen['selection_accuracy'],
              -one.history[one.chosen['epoch'] - 1]['cross_entropy']) for one in (slow, fast)]
    expected = (slow, fast)[int(np.argmax([rank > ranks[1 - i] for i, rank in enumerate(ranks)]))]
    assert best.history == expected.history and best.chosen['head_lr'] in (1e-6, 50.0)


def test_a_rate_of_the_head_out_of_range_is_refused(tmp_path, split, weights):
    with pytest.raises(UserError, match='--head_lr: 0 is out of range; expected above 0'):
        run(tmp_path, split, weights, head_lr=(0.0,))
    request = EvaluationSettings(tmp_path, head_lr=(3.0,)).described()
    assert 'head_lr' not in request  # what does not ask for it is the same request as before
