"""Results of other weights, tiles or settings are never overwritten."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from openselfsup.cli.evaluate import default_folder
from openselfsup.datasets.sources import ImageFolder
from openselfsup.errors import UserError
from openselfsup.evaluation import evaluate
from openselfsup.evaluation.classifier import TrainSettings
from openselfsup.evaluation.data import find_data
from openselfsup.evaluation.ownership import digest
from openselfsup.evaluation.results import read_results
from openselfsup.evaluation.settings import EvaluationSettings

ROOT = Path(__file__).resolve().parents[2]


def run(out, split, weights, **options):
    said = []
    settings = EvaluationSettings(out, model_path=str(weights), baselines=False, resamples=10,
                        say=said.append, protocols=('linear-v1',),
                        **dict(train=TrainSettings(image_size=32, workers=1)) | options)
    evaluate.Evaluation(settings, find_data(str(split))).run()
    return settings.out, said


@pytest.fixture
def other(weights, tmp_path):
    """Other weights of the same name in another folder."""
    state = torch.load(weights, weights_only=True)
    state['conv1.weight'] = state['conv1.weight'] + 0.1
    (tmp_path / 'B').mkdir()
    torch.save(state, tmp_path / 'B' / weights.name)
    return tmp_path / 'B' / weights.name


def test_what_differs_is_named_and_kept(split, weights, other, tmp_path):
    out = tmp_path / 'out'
    run(out, split, weights)
    kept = (out / 'results.json').read_bytes()
    moved = shutil.copytree(split, tmp_path / 'moved')
    tile = next((moved / 'test/TUMOR').iterdir())
    tile.write_bytes(tile.read_bytes() + b' ')
    for options, words in (
            (dict(weights=other), [f'of the weights {weights}, not {other}']),
            (dict(split=moved), ['of other tiles (then 36 and 15']),
            (dict(fractions=(0.5,)), ['fractions was [1.0] and is [0.5]']),
            (dict(seeds=(3,), knn_k=5), ['seeds was [42] and is [3]', 'knn_k was 20 and is 5'])):
        with pytest.raises(UserError) as error:
            run(out, **dict(split=split, weights=weights) | options)
        text = str(error.value)
        assert text.startswith(f'{out}: this folder holds other results: ') and '\n' not in text
        assert all(word in text for word in words), text
        assert (out / 'results.json').read_bytes() == kept
    (out / 'results.json').write_text('{')
    with pytest.raises(UserError, match='no JSON'):
        run(out, split, weights)
    assert (out / 'results.json').read_text() == '{'


def test_the_same_weights_in_another_network_are_other_results(split, weights, tmp_path,
                                                               monkeypatch):
    out = tmp_path / 'out'
    run(out, split, weights)
    monkeypatch.setattr('openselfsup.evaluation.networks.reading_of', lambda backbone: ['other'])
    with pytest.raises(UserError, match='of the same weights in another network'):
        run(out, split, weights)
    old = json.loads((out / 'results.json').read_text())
    assert old['model'].pop('reading') == ''
    (out / 'results.json').write_text(json.dumps(old | dict(schema=2)))
    assert run(out, split, weights)[0] == out  # of a version that did not tell


def test_the_same_inputs_may_be_evaluated_again_wherever_they_lie(split, weights, tmp_path):
    out = tmp_path / 'out'
    run(out, split, weights)
    (tmp_path / 'C').mkdir()
    moved = shutil.copytree(split, tmp_path / 'moved', copy_function=shutil.copy2)
    again = shutil.copy(weights, tmp_path / 'C' / 'renamed.pth')
    assert run(out, moved, again, rename_out=True)[0] == out
    tile = next((moved / 'test/TUMOR').iterdir())
    os.utime(tile, (1, 1))  # written anew: maybe another tile
    assert run(out, moved, again, rename_out=True)[0] == tmp_path / 'out_2'


def test_a_default_folder_gives_way(split, weights, other, tmp_path):
    out = tmp_path / 'out'
    assert run(out, split, weights, rename_out=True)[0] == out
    folder, said = run(out, split, other, rename_out=True)
    assert folder == tmp_path / 'out_2'
    assert f'{out} holds other results: these go to {folder}' in said
    assert run(out, split, other, rename_out=True)[0] == folder
    assert [read_results(f).model['path'] for f in (out, folder)] == [str(weights), str(other)]


def test_the_name_of_the_folder_tells_checkpoints_of_one_name_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_folder('A/epoch_200.pth') == Path('work_dirs/evaluation/A_epoch_200')
    assert default_folder('B/epoch_200.pth') == Path('work_dirs/evaluation/B_epoch_200')
    assert default_folder('epoch_200.pth').name == f'{tmp_path.name}_epoch_200'
    assert default_folder('').name == 'baselines'


def test_digests_of_files_are_those_of_earlier_versions(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        Image.new('RGB', (32, 32)).save(tmp_path / name / '1.png')
    expected = hashlib.sha256()
    for label, name in enumerate(('a', 'b')):
        status = os.stat(tmp_path / name / '1.png')
        expected.update(json.dumps([label, '', '1.png', status.st_size,
                                    status.st_mtime_ns]).encode())
    expected.update(b'|')
    assert digest(ImageFolder(str(tmp_path))) == expected.hexdigest()
