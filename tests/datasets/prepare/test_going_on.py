"""What is prepared already stays only if it was made of the same inputs, by nobody else."""

import gzip
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from benchmarks.speed.slide_files import demo_tissue, write_slide
from openselfsup.archives import unpack
from openselfsup.claims import claimed
from openselfsup.datasets.prepare import bcss, slides, tiles
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


def test_an_input_that_nothing_was_made_of_may_be_mended(tmp_path):
    note, files = tmp_path / 'dst/options.json', [tmp_path / name for name in 'ab']
    for file in files:
        file.write_text('damaged')
    go_on_with(note, {}, tmp_path, files)
    for file in files:
        file.write_text('whole')
    with pytest.raises(UserError, match=r'1 files have another size(.|\n)*\n  a; expected'):
        go_on_with(note, {}, tmp_path, files, lambda file: file.name == 'a')
    go_on_with(note, {}, tmp_path, files[1:], lambda file: False)
    files[1].write_text('changed again')
    with pytest.raises(UserError, match='1 files'):  # what it was mended to is noted
        go_on_with(note, {}, tmp_path, files[1:], lambda file: True)


def test_a_slide_that_was_left_out_is_cut_when_it_is_mended(tmp_path):
    pytest.importorskip('openslide')
    (tmp_path / 'src').mkdir()
    for name in 'ab':
        write_slide(tmp_path / f'src/{name}.svs', demo_tissue(1400, 1100, 100), kind='svs')
    whole = (tmp_path / 'src/b.svs').read_bytes()
    with tifffile.TiffFile(tmp_path / 'src/b.svs') as file:
        place = file.pages[0].dataoffsets[-8]
    (tmp_path / 'src/b.svs').write_bytes(whole[:place] + bytes(500) + whole[place + 500:])
    slides.prepare_slides(tmp_path / 'src', tmp_path / 'dst', report := Report('s'))
    assert re.search(r'b.svs: tile \d+ of level 0 is damaged.*; left out', report.problems[0])
    assert {path.name for path in (tmp_path / 'dst/tiles').iterdir()} == {'a'}
    (tmp_path / 'src/b.svs').write_bytes(whole)
    slides.prepare_slides(tmp_path / 'src', tmp_path / 'dst', report := Report('s'))
    assert not report.problems and report.facts['slides'] == 2
    os.utime(tmp_path / 'src/b.svs', ns=(0, 0))
    with pytest.raises(UserError, match='1 files have another size or time(.|\n)*  b.svs'):
        slides.prepare_slides(tmp_path / 'src', tmp_path / 'dst', Report('s'))


def test_a_region_that_was_left_out_is_cut_when_it_is_mended(tmp_path):
    paths = {}
    for kind in ('images', 'masks'):
        (tmp_path / 'src' / kind).mkdir(parents=True)
        for site in ('A2', 'OL'):
            path = paths[kind, site] = tmp_path / 'src' / kind / f'TCGA-{site}-A0XX_x1_y1.png'
            Image.fromarray(np.ones((64, 64, 3)[:2 + (kind == 'images')], np.uint8)).save(path)
    whole = paths['masks', 'OL'].read_bytes()
    paths['masks', 'OL'].write_bytes(b'no image')

    def prepare() -> Report:
        bcss.prepare_bcss(tmp_path / 'src', tmp_path / 'dst', report := Report('BCSS'), tile=64)
        return report
    assert 'left out' in prepare().problems[0]
    paths['masks', 'OL'].write_bytes(whole)
    assert not prepare().problems
    assert len(list((tmp_path / 'dst/BCSS/test/masks').iterdir())) == 1
    os.utime(paths['masks', 'OL'], ns=(0, 0))
    with pytest.raises(UserError, match='1 files have another size or time'):
        prepare()


def test_a_packed_pcam_that_was_damaged_may_be_copied_again(tmp_path):
    h5py = pytest.importorskip('h5py')
    stem = 'camelyonpatch_level_2_split_valid'
    for part, shape in (('x', (2, 96, 96, 3)), ('y', (2, 1, 1, 1))):
        with h5py.File(tmp_path / 'one.h5', 'w') as file:
            file[part] = np.zeros(shape, np.uint8)
        packed = gzip.compress((tmp_path / 'one.h5').read_bytes())
        (tmp_path / f'{stem}_{part}.h5.gz').write_bytes(packed)
    (tmp_path / f'{stem}_y.h5.gz').write_bytes(packed[:-30])
    with pytest.raises(UserError, match='y.h5.gz: the file is damaged or cut off'):
        tiles.prepare_pcam(tmp_path, tmp_path / 'dst', Report('PCam'))
    (tmp_path / f'{stem}_y.h5.gz').write_bytes(packed)
    tiles.prepare_pcam(tmp_path, tmp_path / 'dst', report := Report('PCam'))
    assert not report.problems and report.facts['meta/valid.txt'] == '2 tiles'


def _archive(path: Path, tiles_of: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in tiles_of.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def tile() -> bytes:
    return next((KATHER / 'TUMOR').glob('*.png')).read_bytes()


def test_two_archives_do_not_meet_in_one_folder(tmp_path, tool, tile):
    first = _archive(tmp_path / 'a.zip', {'TUM/1.png': tile, 'STR/1.png': tile})
    second = _archive(tmp_path / 'b.zip', {'TUM/2.png': tile, 'STR/2.png': tile})
    for _ in range(2):
        done = tool('tools/prepare_data.py', 'folder', first, tmp_path / 'dst')
        assert done.returncode == 0, done.stderr
    for kind, archive in (('folder', second), ('kather2016', second), ('nct-crc', second)):
        done = tool('tools/prepare_data.py', kind, archive, tmp_path / 'dst')
        assert done.returncode == 2 and 'prepared with archive a.zip, now' in done.stderr
    _archive(first, {'TUM/1.png': tile, 'STR/1.png': tile, 'STR/3.png': tile})
    done = tool('tools/prepare_data.py', 'folder', first, tmp_path / 'dst')
    assert done.returncode == 2 and '1 files have another size' in done.stderr
    assert sorted(path.name for path in (tmp_path / 'dst').rglob('*.png')) == ['1.png', '1.png']


def test_an_archive_that_was_damaged_may_be_copied_again(tmp_path, tool, tile):
    whole = _archive(tmp_path / 'a.zip', {'TUM/1.png': tile, 'STR/1.png': tile}).read_bytes()
    (tmp_path / 'a.zip').write_bytes(whole.replace(tile[-99:], bytes(99)))
    done = tool('tools/prepare_data.py', 'folder', tmp_path / 'a.zip', tmp_path / 'dst')
    assert done.returncode == 2 and 'this archive is damaged' in done.stderr
    (tmp_path / 'a.zip').write_bytes(whole)
    done = tool('tools/prepare_data.py', 'folder', tmp_path / 'a.zip', tmp_path / 'dst')
    assert done.returncode == 0, done.stderr


def test_the_archives_of_nct_have_a_folder_each(tmp_path, tool, tile):
    for name in ('CRC-VAL-HE-7K', 'NCT-CRC-HE-100K-NONORM'):
        path = _archive(tmp_path / f'{name}_own.zip', {f'{name}/ADI/1.png': tile})
        done = tool('tools/prepare_data.py', 'nct-crc', path, tmp_path / 'dst')
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'dst/images').iterdir())) == 2


@pytest.mark.parametrize('kind, src', [('bcss', 'ds/BCSS'), ('glas', 'ds/GlaS'), ('glas', 'ds'),
                                       ('folder', 'ds')])
def test_nothing_is_written_into_src(tmp_path, tool, kind, src):
    (tmp_path / src / 'images').mkdir(parents=True)
    for options in ([], ['--demo'] * (kind == 'glas')):
        done = tool('tools/prepare_data.py', kind, tmp_path / src, tmp_path / 'ds', *options)
        assert done.returncode == 2 and 'it lies in SRC, which must not be touched' in done.stderr
    assert [path.name for path in (tmp_path / src).iterdir()] == ['images']


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
