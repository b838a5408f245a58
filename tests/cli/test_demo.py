"""The demo empties its own folder and no other."""

import subprocess

import pytest

from openselfsup.claims import claimed
from openselfsup.cli import demo
from openselfsup.cli.main import COMMANDS, execute, parse
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
    (own / '.demo').unlink()  # as earlier versions left it
    for name in ('config.py', 'summary.json', 'backbone.pth'):
        (own / name).touch()
        with pytest.raises(UserError, match='not the folder of an earlier demo'):
            demo.empty(own)
    (own / 'glands_plm').mkdir()
    demo.empty(own)
    assert [path.name for path in own.iterdir()] == ['.demo']


@pytest.mark.parametrize('name', ['.in_use', '.demo_in_use'])
def test_a_folder_in_which_a_demo_or_one_of_its_tools_runs_is_left_alone(
        tmp_path, name):
    demo.empty(tmp_path)
    (tmp_path / 'results').touch()
    with claimed(tmp_path, 'pretraining', name=name), \
            pytest.raises(UserError, match='writes into this folder'):
        execute('demo', ['--work-dir', str(tmp_path)])
    assert (tmp_path / 'results').exists()


def test_claims_survive_the_emptying(tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(demo, 'demonstrate', lambda folder, options: held.extend(
        path.name for path in folder.iterdir()))
    execute('demo', ['--work-dir', str(tmp_path)])
    assert sorted(held) == ['.demo', '.demo_in_use']


def test_the_commands_that_it_prints_are_read_by_their_parsers(tmp_path, monkeypatch):
    read = []

    def parsed(words: list[str], env: dict) -> subprocess.CompletedProcess:
        words = words[words.index('openselfsup') + 1:]
        name = ' '.join(words[:2]) if ' '.join(words[:2]) in COMMANDS else words[0]
        parse(name, words[len(name.split()):])
        read.append(name)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(demo.subprocess, 'run', parsed)
    for part in (lambda folder: demo.demonstrate(folder, ['epochs=1']), demo.classify,
                 demo.segment):
        with pytest.raises(FileNotFoundError):  # what the commands would have written
            part(tmp_path)
    assert read == ['train', 'train', 'extract-backbone', 'evaluate', 'prepare', 'segment instance',
                    'segment instance']
