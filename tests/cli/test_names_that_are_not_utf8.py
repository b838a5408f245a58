"""Tiles whose names are not UTF-8 go through every tool, each in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

REPO = Path(__file__).parents[2]
ODD = os.fsdecode(b'caf\xe9_')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('odd')
    for kind in ('TUMOR', 'EMPTY'):
        (root / 'tiles' / kind).mkdir(parents=True)
        for path in sorted((REPO / 'data/demo/kather2016' / kind).iterdir())[:4]:
            shutil.copy(path, root / 'tiles' / kind / (ODD + path.name))
    (root / 'config.py').write_text(f'''_base_ = '{REPO}/configs/demo/plm_r18.py'
dataset = dict(
    source=dict(_delete_=True, type='ImageList', list_file='lists/meta/all.txt', root='tiles'),
    recipe=dict(size=32))
model = dict(queue_len=16)
epochs = 1
global_batch_size = 4
amp = 'off'
workers = 0
''')
    run(root, 'tools/prepare_data.py', 'folder', 'tiles', 'lists')
    return root


def run(folder: Path, tool: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, REPO / tool, *arguments], cwd=folder,
                          capture_output=True)
    output = (done.stdout + done.stderr).decode()  # what is written is UTF-8
    assert not done.returncode and 'Traceback' not in output, output
    return output


def test_their_list_is_checked_and_verified(folder):
    assert len((folder / 'lists/meta/all.txt').read_bytes().split(b'caf\xe9_')) == 9
    run(folder, 'tools/prepare_data.py', 'folder', 'lists', 'lists', '--check')
    assert 'tiles    8' in run(folder, 'tools/verify_data.py', 'config.py', '--full')
    (folder / 'bad').mkdir()
    (folder / 'bad' / (ODD + '.png')).write_bytes(b'no image')
    with pytest.raises(AssertionError, match=r'caf\\xe9_\.png: neither TIFF'):
        run(folder, 'tools/verify_data.py', 'bad')


def test_they_are_shown_trained_on_and_extracted(folder, tool):
    run(folder, 'tools/browse_views.py', 'config.py', '--out', 'views', '--n', '4')
    run(folder, 'tools/train.py', 'config.py', '--work-dir', 'run')
    words = ['tools/extract.py', 'config.py', 'run/latest.pth', '--size', '32', '--out']
    run(folder, *words, 'f.npz')
    assert tool(*words, 'f.h5', cwd=folder).returncode == 0
    expected = sorted(str(p.relative_to(folder)) for p in folder.glob('tiles/*/*'))
    assert sorted(np.load(folder / 'f.npz')['paths'].tolist()) == expected
    with h5py.File(folder / 'f.h5') as file:
        assert sorted(os.fsdecode(path) for path in file['paths'][:]) == expected


def test_they_are_packed(folder, tool):
    run(folder, 'tools/pack_tiles.py', 'tiles', 'store')
    again = tool('tools/pack_tiles.py', 'tiles', 'store', cwd=folder)
    assert again.returncode == 0  # finished: the same tiles


def test_they_are_evaluated(folder):
    run(folder, 'benchmarks/classification/ft_le.py', '--train', 'tiles', '--holdout', '0.5',
        '--labeled_train', '1', '--image_size', '32', '--out', 'evaluation')
    page = (folder / 'evaluation/report.html').read_text(encoding='utf-8')
    assert 'caf' not in page or r'caf\xe9' in page or r'\udce9' in page
