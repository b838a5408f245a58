"""PCam files that are cut off, damaged or of another form: one sentence, and which file."""

import gzip

import h5py
import numpy as np
import pytest

from openselfsup.datasets.headers import TileError
from openselfsup.datasets.identity import stamps
from openselfsup.datasets.pcam import PCam
from openselfsup.datasets.prepare.report import Report
from openselfsup.datasets.prepare.tiles import prepare_pcam
from openselfsup.errors import UserError

TILES = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), np.uint8)
STEM = 'camelyonpatch_level_2_split_train'


@pytest.fixture
def files(tmp_path):
    paths = {key: tmp_path / f'{STEM}_{key}.h5' for key in 'xy'}
    with h5py.File(paths['x'], 'w') as file:
        file.create_dataset('x', data=TILES, chunks=(1, 96, 96, 3), compression='gzip')
    with h5py.File(paths['y'], 'w') as file:
        file['y'] = np.array([0, 1, 0, 1, 0, 1]).reshape(6, 1, 1, 1)
    return paths


@pytest.mark.parametrize('key', 'xy')
@pytest.mark.parametrize('keep', [0.999, 0.5, 0.1])
def test_a_cut_file_is_called_cut_off(files, key, keep):
    whole = files[key].read_bytes()
    files[key].write_bytes(whole[:int(len(whole) * keep)])
    with pytest.raises(UserError, match='the file is cut off: it has .* expected') as caught:
        PCam(str(files['x']))
    assert caught.value.where == str(files[key]) and f'{len(whole):,}' in str(caught.value)


def test_a_damaged_tile_is_an_error_of_that_tile(files):
    with h5py.File(files['x']) as file:
        place = file['x'].id.get_chunk_info(2).byte_offset
    data = bytearray(files['x'].read_bytes())
    data[place + 50:place + 90] = bytes(40)
    files['x'].write_bytes(data)
    source = PCam(str(files['x']))
    with pytest.raises(TileError, match='damaged') as caught:
        source.read(2)
    assert caught.value.where == f"{files['x']}#2"
    assert np.array_equal(source.read(3), TILES[3])


def test_other_forms(files):
    with h5py.File(files['y'], 'w') as file:
        file['Y'] = np.zeros(6, int)
    with pytest.raises(UserError, match="no data set 'y'; did you mean 'Y'"):
        PCam(str(files['x']))
    with h5py.File(files['y'], 'w') as file:
        file['y'] = np.zeros(6) + 0.5
    with pytest.raises(UserError, match='the labels are float64'):
        PCam(str(files['x']))
    files['y'].write_bytes(b'no HDF5')
    with pytest.raises(UserError, match='no HDF5 file'):
        PCam(str(files['x']))


def test_the_file_of_all_tiles_is_asked_once(files, monkeypatch):
    source = PCam(str(files['x']))
    status = files['x'].stat()
    monkeypatch.setattr('openselfsup.datasets.pcam.stamp_of', lambda path: pytest.fail('again'))
    assert stamps(source) == [(status.st_size, status.st_mtime_ns)] * len(source)


def test_prepare_leaves_out_what_is_cut_and_names_it(files, tmp_path):
    whole = files['x'].read_bytes()
    files['x'].write_bytes(whole[:-100])
    for key in 'xy':  # another split that is whole
        content = whole if key == 'x' else files['y'].read_bytes()
        (tmp_path / f'camelyonpatch_level_2_split_test_{key}.h5').write_bytes(content)
    report = Report('PCam')
    prepare_pcam(tmp_path, tmp_path / 'out', report)
    assert 'the file is cut off' in str(report.problems) and 'train is left out' in str(
        report.problems)
    assert (tmp_path / 'out/meta/test.txt').exists()
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full/test').write_text('in the way')
    with pytest.raises(UserError, match='full.test.*could not be written: part of its path is a'):
        prepare_pcam(tmp_path, tmp_path / 'full', Report('PCam'))
    packed = tmp_path / 'packed'
    packed.mkdir()
    for key in 'xy':
        (packed / f'{STEM}_{key}.h5.gz').write_bytes(gzip.compress(files[key].read_bytes())[:-50])
    with pytest.raises(UserError, match='damaged or cut off'):
        prepare_pcam(packed, tmp_path / 'out2', Report('PCam'))
