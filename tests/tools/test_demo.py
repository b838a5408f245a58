"""The demo empties its own folder and no other."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools'))

import demo

from openselfsup.claims import claimed
from openselfsup.errors import UserError


def test_only_the_folder_of_an_earlier_demo_is_emptied(tmp_path):
    other, own = tmp_path / 'run', tmp_path / 'demo'
    for folder in (other, own):
        folder.mkdir()
    (other / 'config.py').touch()  # as every training writes
    with pytest.raises(UserError, match='not the folder of an earlier demo'):
        demo.empty(other)
    assert (other / 'config.py').exists()
    demo.empty(own)
    (own / 'evaluation').mkdir()
    (own / 'evaluation/results.json').touch()
    (own / 'elsewhere').symlink_to(other)
    demo.empty(own)
    assert [path.name for path in own.iterdir()] == ['.demo']
    assert (other / 'config.py').exists()


@pytest.mark.parametrize('name', ['.in_use', '.demo_in_use'])
def test_a_folder_in_which_a_demo_or_one_of_its_tools_runs_is_left_alone(
        tmp_path, monkeypatch, name):
    demo.empty(tmp_path)
    (tmp_path / 'results').touch()
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--work-dir', str(tmp_path)])
    with claimed(tmp_path, 'pretraining', name=name), \
            pytest.raises(UserError, match='writes into this folder'):
        demo.main()
    assert (tmp_path / 'results').exists()


def test_claims_survive_the_emptying(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--work-dir', str(tmp_path)])
    held = []
    monkeypatch.setattr(demo, 'demonstrate', lambda folder, options: held.extend(
        path.name for path in folder.iterdir()))
    demo.main()
    assert sorted(held) == ['.demo', '.demo_in_use']
