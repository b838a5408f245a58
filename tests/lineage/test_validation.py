"""tools/test.py: a classifier with its head, on the tiles that a published config validates on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from openselfsup.cli.main import execute
from openselfsup.datasets import ImageFolder
from openselfsup.datasets.labeled import LabeledTileDataset
from openselfsup.errors import UserError
from openselfsup.evaluation import trained_classifier
from openselfsup.evaluation.trained_classifier import labels_as_trained
from openselfsup.files import read_json
from openselfsup.lineage.configs import load_config
from openselfsup.lineage.validation import validation_of
from openselfsup.registry import ALGORITHMS
from openselfsup.training.normalization import IMAGENET_MEAN, IMAGENET_STD, Normalize

REPO = Path(__file__).resolve().parents[2]
OURS = str(REPO / 'configs/Classification/r18_bs256_ep100.py')
STAGES = str(REPO / 'configs/Classification/r50_stages_bs256_ep28.py')
OPTIONS = ['dataset.recipe.size=64', "dataset.source={'type': 'ImageFolder', 'root': 'tiles'}"]


@pytest.fixture
def published(there) -> Iterator[Path]:
    """ConCL's classification config, and eight labelled tiles that it validates on."""
    found, = there.rglob('NCT_pretraining/classification/*.py')
    lists = there / 'data/NCT/meta'
    (lists / 'val_labeled.txt').write_text((lists / 'train_labeled.txt').read_text())
    text = found.read_text().replace("'nowhere.txt'", "'data/NCT/meta/val_labeled.txt'")
    copy = found.with_name('validated.py')
    copy.write_text(text.replace("'nowhere'", "'data/NCT/data'"))
    yield copy
    copy.unlink()
    (lists / 'val_labeled.txt').unlink()


def saved(config: str, path: Path, prefix: str = '') -> Path:
    """Write a checkpoint of random weights."""
    torch.manual_seed(0)
    model = ALGORITHMS.build(load_config(config).model)
    state = {f'{prefix}{name}': value for name, value in model.state_dict().items()}
    torch.save(dict(meta={}, state_dict=state), path)
    return path


def test_a_published_config_names_its_tiles_by_itself(published, tmp_path, capsys):
    found = validation_of(published)
    assert (len(found.source), found.size, found.resize) == (8, 224, 256)
    checkpoint = saved(str(published), tmp_path / 'epoch_100.pth', 'module.')
    execute('test', [str(published), str(checkpoint), '--launcher', 'none'])
    said = capsys.readouterr().out
    assert '8 tiles' in said and 'head   Accuracy ' in said
    scores = read_json(tmp_path / 'test.json')['scores']['head']
    model = ALGORITHMS.build(load_config(str(published)).model)
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    model.load_state_dict({name.removeprefix('module.'): v for name, v in state.items()})
    tiles = LabeledTileDataset(found.source, 224, 256)
    images = Normalize(IMAGENET_MEAN, IMAGENET_STD)(torch.stack([tiles[i][0] for i in range(8)]))
    with torch.no_grad():
        answers = model.eval().head(model.backbone(images))
    labels = torch.from_numpy(found.source.labels)
    assert scores['accuracy']['value'] == float((answers.argmax(1) == labels).double().mean())
    assert scores['top5']['value'] == float(
        (answers.topk(5).indices == labels[:, None]).any(1).double().mean())


def test_two_processes_score_what_one_does(tmp_path, monkeypatch, free_port):
    shutil.copytree(REPO / 'data/demo/kather2016', tmp_path / 'tiles')
    checkpoint = saved(OURS, tmp_path / 'c.pth')
    words = ['--data', 'tiles', '--cfg-options', *OPTIONS]
    done = subprocess.run(
        [REPO / 'tools/dist_test.sh', OURS, '2', checkpoint, *words], cwd=tmp_path, text=True,
        capture_output=True, timeout=240,
        env={**os.environ, 'PYTHON': sys.executable, 'PORT': free_port, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('51 tiles') == 1
    two = read_json(tmp_path / 'test.json')
    monkeypatch.chdir(tmp_path)
    execute('test', [OURS, str(checkpoint), '--work_dir', 'one', *words])
    assert read_json(tmp_path / 'one/test.json')['scores'] == two['scores']


def test_intervals_redraw_patients(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPO / 'data/demo/kather2016', tmp_path / 'tiles')
    checkpoint = str(saved(OURS, tmp_path / 'c.pth'))
    words = [OURS, checkpoint, '--data', 'tiles', '--cfg-options', *OPTIONS]
    found = []
    for folder, pattern in (('alone', []), ('ten', ['--patient_pattern', r'image_\d*(\d)\b'])):
        execute('test', [*words, '--work_dir', folder, *pattern])
        found.append(read_json(tmp_path / folder / 'test.json'))
    alone, ten = found
    assert (alone['patients'], ten['patients']) == (None, 10)
    scores = [one['scores']['head']['accuracy'] for one in found]
    assert scores[0]['value'] == scores[1]['value'] and scores[0] != scores[1]
    said = capsys.readouterr().out
    assert 'intervals treat tiles as independent' in said and '51 tiles of 10 patients' in said
    with pytest.raises(UserError, match='finds no patient in 51 of 51 paths'):
        execute('test', [*words, '--patient_pattern', '(P[0-9]+)_'])


def test_other_scores_are_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder, names in (('tiles', ('LYMPHO', 'STROMA')), ('others', ('LYMPHO',))):
        for name in names:
            shutil.copytree(REPO / 'data/demo/kather2016' / name, tmp_path / folder / name)
    options = ['--cfg-options', *OPTIONS, 'model.head.num_classes=2']
    for seed, path in enumerate(('epoch_50.pth', 'epoch_100.pth')):
        torch.manual_seed(seed)
        model = ALGORITHMS.build(load_config(OURS, ['model.head.num_classes=2']).model)
        torch.save(dict(meta={}, state_dict=model.state_dict()), path)
    first = [OURS, 'epoch_50.pth', '--data', 'tiles', *options]
    execute('test', first)
    text = Path('test.json').read_bytes()
    os.rename('tiles', 'moved')  # what counts is content
    shutil.copy('epoch_50.pth', 'latest.pth')
    execute('test', [OURS, 'latest.pth', '--data', 'moved', '--cfg-options', OPTIONS[0],
                     "dataset.source={'type': 'ImageFolder', 'root': 'moved'}",
                     'model.head.num_classes=2'])
    again = read_json('test.json')
    assert again['checkpoint'] == 'latest.pth' and again['inputs'] == json.loads(text)['inputs']
    os.rename('moved', 'tiles')
    text = Path('test.json').read_bytes()
    monkeypatch.setattr(trained_classifier, 'extract_source', None)  # nothing is computed
    for words, differs in (([OURS, 'epoch_100.pth', *first[2:]], 'weights'),
                           ([*first[:3], 'others', *options], 'tiles, labels'),
                           ([*first[:4], '--size', '32', *options], 'size, resize')):
        with pytest.raises(UserError, match='test.json: this file holds scores of latest.pth on .* '
                           f'of other {differs}; expected another --work_dir'):
            execute('test', words)
        assert Path('test.json').read_bytes() == text
    Path('test.json').write_text('{"images": []}')  # annotations, say
    with pytest.raises(UserError, match='does not tell of which weights'):
        execute('test', first)


def test_every_stage_has_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPO / 'data/demo/kather2016/STROMA', tmp_path / 'tiles/STROMA')
    checkpoint = saved(STAGES, tmp_path / 'c.pth')
    execute('test', [STAGES, str(checkpoint), '--data', 'tiles', '--cfg-options', *OPTIONS])
    assert [*read_json(tmp_path / 'test.json')['scores']] == [f'stage{i}' for i in range(5)]


def test_labels_are_those_that_were_trained(tmp_path):
    for name in ('LYMPHO', 'STROMA'):
        shutil.copytree(REPO / 'data/demo/kather2016' / name, tmp_path / name)
    source = ImageFolder(str(tmp_path))
    assert set(labels_as_trained(source, ['ADIPOSE', 'STROMA', 'LYMPHO'], 3)) == {1, 2}
    assert np.array_equal(labels_as_trained(source, None, 2), source.labels)
    with pytest.raises(UserError, match='of 2 classes, and which of the 3 that were trained canno'):
        labels_as_trained(source, None, 3)
    with pytest.raises(UserError, match="class 'STROMA' was not trained"):
        labels_as_trained(source, ['ADIPOSE', 'LYMPHO'], 2)


def test_mistakes_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPO / 'data/demo/kather2016', tmp_path / 'tiles')
    demo = str(REPO / 'configs/demo/plm_r18.py')
    with pytest.raises(UserError, match='--data: nothing says which tiles to test on'):
        execute('test', [OURS, 'c.pth'])
    with pytest.raises(UserError, match="'PLM' learns without labels"):
        execute('test', [demo, 'c.pth', '--data', 'tiles'])
    checkpoint = saved(OURS, tmp_path / 'c.pth')
    words = [OURS, str(checkpoint), '--data', 'tiles', '--cfg-options', *OPTIONS]
    with pytest.raises(UserError, match='there are 8 classes, the head has 3'):
        saved_state = torch.load(checkpoint, weights_only=True)
        state = saved_state['state_dict']
        for name in ('weight', 'bias'):
            state[f'head.fc_cls.{name}'] = state[f'head.fc_cls.{name}'][:3]
        torch.save(saved_state, tmp_path / 'three.pth')
        execute('test', [OURS, 'three.pth', *words[2:], 'model.head.num_classes=3'])
    with pytest.raises(UserError, match='2 tensors have another shape, such as head.fc_cls'):
        execute('test', [OURS, 'three.pth', *words[2:]])
