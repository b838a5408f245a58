"""What is prepared already stays only if it was made of the same inputs, by nobody else."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openselfsup.archives import unpack
from openselfsup.claims import claimed
from openselfsup.datasets.prepare import tiles
from openselfsup.datasets.prepare.report import Report
from openselfsup.datasets.prepare.resuming import go_on_with
from openselfsup.errors import UserError
from openselfsup.files import read_json

REPO = Path(__file__).parents[3]
KATHER = REPO / 'data/demo/kather2016'


def test_inputs_are_known_by_size_and_time_of_change(tmp_path):
    src, note = tmp_path / 'src', tmp_path / 'dst/options.json'
    src.mkdir()
    files = [src / name for name in 'abc']
    for file in files:
        file.write_text('old')
    go_on_with(note, dict(size=64), src, files[:2])
    go_on_with(note, dict(size=64), src, files)  # one was added
    with pytest.raises(UserError, match='prepared with size 64, now 32; expected the same opt'):
        go_on_with(note, dict(size=32), src, files)
    with pytest.raises(UserError, match='prepared with size 64, now None'):
        go_on_with(note, {}, src, files)
    before = note.read_bytes()
    src.rename(tmp_path / 'moved')
    moved = [tmp_path / 'moved' / file.name for file in files]
    go_on_with(note, dict(size=64), tmp_path / 'moved', moved)
    old = moved[1].stat()
    moved[1].write_text('longer')
    os.utime(moved[1], ns=(old.st_atime_ns, old.st_mtime_ns))  # the size tells
    os.utime(moved[2], ns=(0, 0))
    with pytest.raises(UserError, match='2 files have another size or time(.|\n)*b\n  c') as found:
        go_on_with(note, dict(size=64), tmp_path / 'moved', moved)
    assert str(found.value).startswith(str(note.parent)) and 'another DST' in str(found.value)
    assert note.read_bytes() == before
    go_on_with(note, dict(size=64), tmp_path / 'moved', moved[:1])  # the others are not read


def test_what_is_unpacked_again_is_the_same_input(tmp_path):
    (tmp_path / 'a.txt').write_text('a')
    os.utime(tmp_path / 'a.txt', (1_500_000_000, 1_500_000_000))
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.write(tmp_path / 'a.txt', 'a.txt')
    for name in ('first', 'second'):
        unpack(tmp_path / 'a.zip', tmp_path / name)
        assert (tmp_path / name / 'a.txt').stat().st_mtime == 1_500_000_000


def test_tiles_of_another_pcam_are_not_taken_for_these(tmp_path):
    h5py = pytest.importorskip('h5py')
    stem = 'camelyonpatch_level_2_split_valid'

    def write(seed: int) -> None:
        x = np.random.default_rng(seed).integers(0, 255, (2, 96, 96, 3), np.uint8)
        for part, data in (('x', x), ('y', np.zeros((2, 1, 1, 1), np.uint8))):
            with h5py.File(tmp_path / f'{stem}_{part}.h5', 'w') as file:
                file[part] = data

    write(0)
    (tmp_path / 'dst').mkdir()
    options = tmp_path / 'dst/options.json'  # of slides that were cut into the same folder
    options.write_text('{"mpp": 0.5}')
    tiles.prepare_pcam(tmp_path, tmp_path / 'dst', Report('PCam'))
    assert options.read_text() == '{"mpp": 0.5}'
    tiles.prepare_pcam(tmp_path, tmp_path / 'dst', Report('PCam'))
    write(1)
    with pytest.raises(UserError, match=f'{stem}_x.h5'):
        tiles.prepare_pcam(tmp_path, tmp_path / 'dst', Report('PCam'))
    (tmp_path / f'{stem}_y.h5').unlink()
    with pytest.raises(UserError, match='not the layout of PCam'):
        tiles.prepare_pcam(tmp_path, tmp_path / 'new', Report('PCam'))
    assert not (tmp_path / 'new').exists()


def test_lists_of_other_tiles_are_not_overwritten(tmp_path, monkeypatch):
    image = Image.fromarray(np.zeros((40, 40, 3), np.uint8))
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / f'{name}.png')
    tiles.prepare_folder(tmp_path / 'a', tmp_path / 'dst', Report('folder'))
    image.save(tmp_path / 'a/new.png')
    tiles.prepare_folder(tmp_path / 'a', tmp_path / 'dst', Report('folder'))
    assert read_json(tmp_path / 'dst/dataset.json')['lists']['all'] == 2
    monkeypatch.setattr(tiles, 'read_headers', lambda paths: pytest.fail('tiles were read'))
    with pytest.raises(UserError, match='the lists of folder in .*/a, not of folder in .*/b'):
        tiles.prepare_folder(tmp_path / 'b', tmp_path / 'dst', Report('folder'))
    assert 'a.png' in (tmp_path / 'dst/meta/all.txt').read_text()


def test_a_folder_that_another_process_prepares_is_left_alone(tmp_path):
    with claimed(tmp_path, 'preparing data'):
        done = subprocess.run([sys.executable, 'tools/prepare_data.py', 'folder', str(KATHER),
                               str(tmp_path)], cwd=REPO, text=True, capture_output=True)
        assert [path.name for path in tmp_path.iterdir()] == ['.in_use']
    assert done.returncode == 2 and f'process {os.getpid()} on' in done.stderr
