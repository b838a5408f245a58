import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.learning import results, table
from benchmarks.learning.__main__ import parse, settle
from benchmarks.learning.classification import answers, questions
from benchmarks.learning.pretraining import Budget, find_configs
from benchmarks.learning.tissue import few, parts
from openselfsup.errors import UserError

REPO = Path(__file__).resolve().parents[2]
CLASSES = ('Polyp', 'Serrated_adenoma', 'Normal', 'High-grade_IN', 'Adenocarcinoma')


@pytest.fixture(scope='module')
def tissue(tmp_path_factory):
    """Tiles of 40 cases whose classes differ in colour and in the stripes of a part of them."""
    root, rng = tmp_path_factory.mktemp('tissue'), np.random.default_rng(0)
    for part, cases in (('train', range(24)), ('test', range(24, 40))):
        for case in cases:
            name = CLASSES[case % len(CLASSES)]
            for tile in range(3):
                pixels = rng.normal(100 + 25 * (case % len(CLASSES)), 20, (48, 48, 3))
                mask = np.zeros((48, 48), np.uint8)
                mask[:, 12:36] = 255
                pixels[mask > 0] -= 60
                for folder, image in (('', pixels.clip(0, 255).astype(np.uint8)),
                                      ('masks', mask)):
                    path = root / folder / part / name / f'GTx{case}-1-400-{tile:03d}.png'
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(path)
    return root


def test_merged_classes_come_first_and_cases_stay_whole(tissue):
    learn, test = parts(tissue, final=True)
    assert list(learn.labels) == ['3 classes', '5 classes']
    assert len(learn.indices) == 72 and len(set(test.cases)) == 16
    kept, held = parts(tissue, final=False)
    assert not set(kept.cases) & set(held.cases)
    assert len(kept.indices) + len(held.indices) == 72  # nothing of the test
    assert set(kept.labels['3 classes']) == set(held.labels['3 classes']) == {0, 1, 2}


def test_a_case_in_both_parts_is_refused(tissue, tmp_path):
    for part in ('train', 'test'):
        folder = tmp_path / part / 'Normal'
        folder.mkdir(parents=True)
        for case in (1, 2):
            Image.new('RGB', (48, 48)).save(folder / f'GT{case}-1-400-001.png')
    with pytest.raises(UserError, match='2 cases are in both parts, such as 1'):
        parts(tmp_path, final=True)
    with pytest.raises(UserError, match='no training tiles.*train/CLASS'):
        parts(tmp_path / 'nowhere', final=False)


def test_few_labels_are_at_least_five_of_each_class():
    labels = np.repeat([0, 1, 2], [200, 40, 3])
    chosen = few(labels, 0.05, 0)
    assert np.bincount(labels[chosen]).tolist() == [10, 5, 3]
    assert set(chosen) <= set(few(labels, 0.2, 0))  # a larger share contains a smaller one


def test_a_budget_is_minutes_or_tiles():
    assert Budget.of('40min') == Budget(40, 'min') and str(Budget.of('500tiles')) == '500 tiles'
    for wrong in ('40', '0min', 'min', '3epochs'):
        with pytest.raises(UserError, match='is no budget.*40min'):
            Budget.of(wrong)


def test_methods_are_named_once():
    assert find_configs([], ['mine=a.py']) == {'mine': 'a.py'}
    with pytest.raises(UserError, match="called 'simclear'.*simclr"):
        find_configs(['simclear'], [])
    with pytest.raises(UserError, match="'simclr=b.py' is no new name"):
        find_configs(['simclr'], ['simclr=b.py'])


def test_what_tells_classes_apart_is_above_what_does_not(tissue, tmp_path):
    import torch
    learn, test = parts(tissue, final=True)
    noise = np.random.default_rng(1)
    for name, strength in (('good', 4.), ('none', 0.)):
        for seed in range(2):
            train, held = (torch.tensor(strength * np.eye(5)[part.labels['5 classes']]
                                        + noise.normal(size=(len(part.indices), 5))).float()
                           for part in (learn, test))
            np.savez(tmp_path / f'{name}_{seed}.npz', **answers(train, held, learn, seed, False))
    read = results.by_name(tmp_path, ['good', 'none', 'absent'])
    assert list(read) == ['good', 'none'] and len(read['good']) == 2
    found = results.classification(test, read)
    assert list(found) == [str(question) for question in questions(learn)]
    for values in found.values():
        told = results.estimates(values, ['none'])
        assert told['good']['none'].above and set(told['none']) == {''}
    table.write(tmp_path, {question: results.estimates(values, ['none'])
                           for question, values in found.items()}, ['none'], Budget(1, 'min'))
    text = (tmp_path / 'tables.md').read_text()
    assert '## 3 classes, linear-v1, 5 % of the labels' in text
    assert '| good | ' in text and '**+' in text
    page = (tmp_path / 'index.html').read_text()
    assert '<b>+' in page and '**' not in page
    written = json.loads((tmp_path / 'results.json').read_text())['estimates']
    assert set(written['3 classes, linear-v1, 5 % of the labels']['good']) == {'', 'none'}


@pytest.mark.slow
def test_the_study_from_tiles_to_tables_goes_on_where_it_stopped(tissue, tmp_path):
    (tmp_path / 'small.py').write_text(
        f"_base_ = '{REPO}/configs/demo/plm_r18.py'\n"
        "dataset = dict(recipe=dict(size=32))\nglobal_batch_size = 8\n")
    words = [sys.executable, '-m', 'benchmarks.learning', '--data', str(tissue), '--methods', '',
             '--config', f'small={tmp_path / "small.py"}', '--seeds', '1', '--budget', '150tiles',
             '--size', '48', '--out', str(tmp_path / 'out'), '--cfg-options',
             f'dataset.source.root={tissue / "train"}']
    assert subprocess.run(words, cwd=REPO).returncode == 0
    text = (tmp_path / 'out/choosing/tables.md').read_text()
    assert '| small | ' in text and '## glands of the tiles: dense-linear-v1' in text
    run = tmp_path / 'out/runs/small_0'
    assert json.loads((run / 'plan.json').read_text())['epochs'] == 2  # of 72 tiles
    before = (run / 'run/latest.pth').stat().st_mtime_ns
    (tmp_path / 'out/choosing/tiles/small_0.npz').unlink()
    assert subprocess.run(words, cwd=REPO).returncode == 0
    assert (run / 'run/latest.pth').stat().st_mtime_ns == before


def test_a_folder_of_another_study_is_refused(tmp_path, monkeypatch):
    def study(*words):
        monkeypatch.setattr('sys.argv', ['study', '--data', str(tmp_path), '--out',
                                         str(tmp_path / 'out'), *words])
        return parse()

    settle(study('--budget', '1min'), {'a': 'a.py'})
    settle(study('--budget', '1min', '--seeds', '5'), {'b': 'b.py'})  # more of the same
    with pytest.raises(UserError, match='budget was 1min, is now 2min; the config of a was a.py'):
        settle(study('--budget', '2min'), {'a': 'c.py'})
    with pytest.raises(SystemExit):
        study('--seeds', '0')
