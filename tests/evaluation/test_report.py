"""The command line, the report that it writes, and the tools around it."""

import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from openselfsup.datasets import ImageFolder
from openselfsup.errors import UserError
from openselfsup.evaluation.arrays import read_arrays, write_arrays
from openselfsup.evaluation.extract import refuse_other_features
from openselfsup.evaluation.results import read_results
from openselfsup.visualization import report_figures
from openselfsup.visualization.comparison import write_comparison
from openselfsup.visualization.report import write_report
from openselfsup.visualization.report_figures import feature_maps

REPO = Path(__file__).parents[2]
SCRIPT = 'benchmarks/classification/ft_le.py'


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory, split, weights):
    """The published fine-tuning command, shortened."""
    out = tmp_path_factory.mktemp('evaluated') / 'out'
    done = subprocess.run([
        sys.executable, SCRIPT, '--dataset_path', split, '--model_name', 'resnet18',
        '--model_path', weights, '--ft_epoch', '40', '--lr', '0.0003', '--seed', '1',
        '--only_fine_turning', '--labeled_train', '0.5', '--gpu_index', '3', '--debug',
        '--image_size', '32', '--paper-compat', '--out', out], cwd=REPO, capture_output=True,
        text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout + done.stderr


def test_the_published_command_prints_the_table(evaluated):
    out, said = evaluated
    assert 'there is no GPU' in said and 'tensors matched' in said
    for words in ('linear-v1', 'knn-v1', 'finetune-v1', 'paper-compat (finetune)',
                  'colour histogram', 'random init', 'not comparable', 'Macro F1'):
        assert words in said
    assert f'report: {out / "report.html"}' in said
    rows = read_results(out).rows
    finetuned = next(row for row in rows if row.protocol == 'finetune-v1')
    assert finetuned.settings['lr'] == 0.0003 and finetuned.settings['epochs'] == 40
    assert finetuned.seed == 1 and finetuned.settings['batch_size'] == 128


def test_the_report_needs_no_other_file(evaluated):
    text = (evaluated[0] / 'report.html').read_text()
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', text) == []
    assert '@import' not in text and 'url(' not in text
    for title in ('Results', 'Read this with the numbers', 'What is taken for what',
                  'Nearest neighbours', 'Worst mistakes', 'as the features see them', 'Protocols'):
        assert f'{title}</h2>' in text
    assert text.count('data:image/jpeg') > 20 and text.count('data:image/png') >= 2
    assert 'They flatter' in text and 'tell no patients' in text


def test_curves_of_the_pretraining_are_added(evaluated, tmp_path):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n')
    text = write_report(evaluated[0], tmp_path).read_text()
    assert 'How the pretraining went</h2>' in text


def test_umap_is_an_extra(evaluated, monkeypatch):
    found = report_figures.find_spec
    monkeypatch.setattr(report_figures, 'find_spec',
                        lambda name: None if name == 'umap' else found(name))
    assert 'umap-learn is not installed' in write_report(evaluated[0]).read_text()

    class Stub:
        def __init__(self, n_neighbors, random_state, n_jobs):
            assert n_neighbors == 14 and random_state == 0  # 15 test tiles

        def fit_transform(self, features):
            return features[:, :2]

    monkeypatch.setattr(report_figures, 'find_spec', lambda name: 'somewhere')
    monkeypatch.setitem(sys.modules, 'umap', types.SimpleNamespace(UMAP=Stub))
    text = write_report(evaluated[0]).read_text()
    assert 'UMAP, 14 neighbours' in text and 'umap-learn is not installed' not in text


def test_tiles_that_moved_leave_a_stand_in(evaluated, tmp_path):
    copy = tmp_path / 'copy'
    copy.mkdir()
    for name in ('results.json', 'arrays.npz'):
        (copy / name).write_bytes((evaluated[0] / name).read_bytes())
    arrays = dict(np.load(copy / 'arrays.npz'))
    arrays['test_paths'] = np.array(['/moved/' + Path(str(p)).name for p in arrays['test_paths']])
    np.savez(copy / 'arrays.npz', **arrays)
    assert 'not found</span>' in write_report(copy).read_text()
    (copy / 'arrays.npz').unlink()  # the numbers alone still make a page
    assert 'Results</h2>' in write_report(copy).read_text()


def test_features_of_any_size_are_drawn(tmp_path):
    source = ImageFolder(str(REPO / 'data/demo/kather2016'))
    features = 1e6 * torch.rand(len(source), 8, generator=torch.Generator().manual_seed(0))
    write_arrays(tmp_path, 'now', 0, np.zeros((len(source), 8)),
                 (source, np.arange(len(source)), features), (source, features))
    arrays = read_arrays(tmp_path, 'now')
    assert arrays is not None and arrays['features'].dtype == np.float16
    np.testing.assert_allclose(arrays['features'] * features.norm(dim=1, keepdim=True).numpy(),
                               features.numpy(), rtol=2e-3)
    assert len(feature_maps(arrays['features'], arrays['labels'], source.classes)) >= 2


def test_runs_are_compared(evaluated, tmp_path):
    text = write_comparison(dict(first=evaluated[0], second=evaluated[0]),
                            tmp_path / 'all.html').read_text()
    assert 'linear-v1, 50 % labelled</h2>' in text
    # Both checkpoints stand there, the baselines once.
    section = text.split('linear-v1, 50 % labelled</h2>')[1].split('</section>')[0]
    assert section.count('<td>checkpoint</td>') == 2 and section.count('random init (') == 1
    assert 'cannot be compared' not in text and 'first: the paths tell no patients' in text
    assert 'evaluated differently' not in text
    other = shutil.copytree(evaluated[0], tmp_path / 'other')
    asked = json.loads((other / 'results.json').read_text())
    asked['request']['knn_k'], asked['request']['train']['image_size'] = 200, 320
    (other / 'results.json').write_text(json.dumps(asked))
    text = write_comparison(dict(a=evaluated[0], b=other), tmp_path / 'all.html').read_text()
    assert 'a and b were evaluated differently: knn_k 20 and 200; train.image_size ' in text
    write_comparison(dict(a=evaluated[0], b=evaluated[0]), tmp_path / 'all.html')  # drawn anew
    (tmp_path / 'notes.html').write_text('<p>mine</p>')
    with pytest.raises(UserError, match='no comparison of evaluations'):
        write_comparison(dict(a=evaluated[0], b=evaluated[0]), tmp_path / 'notes.html')


@pytest.mark.parametrize('words, told', [
    (['--dataset_path', 'nowhere'], 'no such folder'),
    (['--labeled_train', 10], '--labeled_train: must be a number above 0 and at most 1, not 10'),
    (['--eval_metrics', 'acuracy'], "did you mean 'accuracy'")])
def test_mistakes_are_one_sentence(split, weights, tool, words, told):
    done = tool(SCRIPT, '--dataset_path', split, '--model_path', weights, *words)
    assert done.returncode == 2 and 'error: ' in done.stderr and told in done.stderr


@pytest.mark.parametrize('suffix', ['.npz', '.h5'])
def test_features_are_extracted_with_paths_and_labels(weights, tmp_path, suffix, tool):
    out = tmp_path / f'features{suffix}'
    done = tool('tools/extract.py', 'configs/demo/plm_r18.py', weights, '--out', out, '--size', 32,
                '--data', 'data/demo/kather2016')
    assert done.returncode == 0, done.stderr
    assert '51 tiles x 512 features' in done.stdout and 'tensors matched' in done.stdout
    if suffix == '.npz':
        found = dict(np.load(out))
    else:
        with h5py.File(out) as file:
            found = {name: file[name][()] for name in file}
            found['paths'] = found['paths'].astype(str)
    assert found['features'].shape == (51, 512) and found['features'].dtype == np.float32
    assert found['labels'].tolist() == sorted(found['labels'].tolist())
    assert found['paths'][0].endswith('ADIPOSE/image_008.png') and len(found['classes']) == 8
    inputs = found['inputs']
    refuse_other_features(out, inputs.decode() if suffix == '.h5' else str(inputs))
    with pytest.raises(UserError, match='features of other weights, tiles or settings'):
        refuse_other_features(out, '0')
    out.write_bytes(b'mine')
    with pytest.raises(UserError, match='this file holds something else'):
        refuse_other_features(out, '0')
