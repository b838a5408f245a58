"""Tiles that training part and test have in common, told by contents and not by names."""

import shutil

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openselfsup.datasets.sources import Source
from openselfsup.errors import UserError
from openselfsup.evaluation import evaluate
from openselfsup.evaluation.classifier import TrainSettings
from openselfsup.evaluation.copies import pixel_number, same_files
from openselfsup.evaluation.data import find_data
from openselfsup.evaluation.settings import EvaluationSettings


class Files(Source):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def read(self, index):
        raise AssertionError(f'tile {index} was decoded')

    def path(self, index):
        return str(self.paths[index])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([10, 5000, 20_000]), st.integers(0, 2),
                          st.sampled_from(['start', 'middle', 'end'])), min_size=1, max_size=12),
       st.integers(0, 12))
def test_same_numbers_mean_same_bytes(tmp_path, wanted, cut):
    paths = []
    for i, (size, byte, place) in enumerate(wanted):
        data = bytearray(size)
        data[dict(start=0, middle=size // 2, end=size - 1)[place]] = byte
        paths.append(tmp_path / f'{i}.bin')
        paths[-1].write_bytes(data)
    parts = [Files(paths[:cut]), Files(paths[cut:])]
    numbers = np.concatenate(same_files(*parts))
    assert [len(n) for n in same_files(*parts)] == [len(part) for part in parts]
    contents = [path.read_bytes() for path in paths]
    for i, first in enumerate(contents):
        for j, second in enumerate(contents):
            assert (numbers[i] == numbers[j]) == (first == second)


def test_pixels_are_told_apart_by_value_and_shape():
    tile = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert pixel_number(tile) == pixel_number(tile.copy(order='F'))
    assert pixel_number(tile) != pixel_number(tile.reshape(4, 2, 3))
    assert pixel_number(tile) != pixel_number(tile + 1)


@pytest.fixture
def parts(split, tmp_path):
    return shutil.copytree(split, tmp_path / 'data')


def leak(parts, suffix='.png'):
    """File a training tile under another name in the test, in another format if need be."""
    source = sorted((parts / 'train/TUMOR').iterdir())[0]
    target = parts / f'test/STROMA/other{suffix}'
    if suffix == '.png':
        shutil.copy(source, target)
    else:
        cv2.imwrite(str(target), cv2.imread(str(source)))
    return source, target


def test_byte_identical_tiles_are_refused_or_a_warning(parts):
    source, target = leak(parts)
    with pytest.raises(UserError) as error:
        find_data(train=str(parts / 'train'), test=str(parts / 'test'))
    text = str(error.value)
    assert '1 of 16 test tiles are byte for byte training tiles' in text and '\n' not in text
    assert str(source) in text and str(target) in text and '--allow_overlap' in text
    data = find_data(train=str(parts / 'train'), test=str(parts / 'test'), allow_overlap=True)
    assert data.notes[0].startswith('WARNING: 1 of 16 test tiles')
    assert data.shared['tiles'] == 1


def test_a_published_layout_runs_with_a_warning(parts):
    leak(parts)
    (parts / 'train').rename(parts / 'NCT-CRC-HE-100K')
    (parts / 'test').rename(parts / 'CRC-VAL-HE-7K')
    assert find_data(str(parts)).notes[0].startswith('WARNING: 1 of 16 test tiles')


def evaluated(data, tmp_path, weights):
    said = []
    run = evaluate.Evaluation(EvaluationSettings(
        tmp_path / 'out', model_path=str(weights), baselines=False, resamples=10, say=said.append,
        train=TrainSettings(image_size=32, workers=1)), data)
    return run, said


def test_the_same_pixels_in_another_format_are_told_once_read(parts, tmp_path, weights):
    source, target = leak(parts, '.bmp')
    data = find_data(train=str(parts / 'train'), test=str(parts / 'test'))
    run, _ = evaluated(data, tmp_path, weights)
    with pytest.raises(UserError) as error:
        run.run()
    text = str(error.value)
    assert '1 of 16 test tiles have the same pixels as labelled training tiles' in text
    assert str(source) in text and str(target) in text
    assert (tmp_path / 'out/features.npz').exists()  # nothing that was computed is lost
    data = find_data(train=str(parts / 'train'), test=str(parts / 'test'), allow_overlap=True)
    run, said = evaluated(data, tmp_path, weights)
    results = run.run()
    assert any('were cached' in line for line in said)
    warning = [note for note in results.notes if '1 of 16 test tiles have the same pix' in note]
    assert len(warning) == 1 and warning[0].startswith('WARNING: ') and warning[0] in said
    assert results.data['shared'] == dict(patients=None, tiles=1)


def test_copies_are_not_held_out_of_training(parts):
    for folder in (parts / 'train').iterdir():
        for path in list(folder.iterdir())[:2]:
            shutil.copy(path, folder / f'copy_{path.name}')
    for seed in range(3):
        data = find_data(train=str(parts / 'train'), share=0.4, seed=seed)
        contents = [{open(part.path(i), 'rb').read() for i in range(len(part))}
                    for part in (data.train, data.test)]
        assert contents[1] and not contents[0] & contents[1]
        assert any('are copies of others: no copy' in note for note in data.notes)


def test_tiles_of_a_container_are_compared_by_pixels(tmp_path):
    tiles = np.random.default_rng(0).integers(0, 255, (20, 96, 96, 3), np.uint8)
    tiles[10:] = tiles[:10]
    with h5py.File(tmp_path / 'a_x.h5', 'w') as file:
        file['x'] = tiles
    with h5py.File(tmp_path / 'a_y.h5', 'w') as file:
        file['y'] = np.arange(20) % 2
    data = find_data(train=str(tmp_path / 'a_x.h5'), share=0.3)
    found = [{part.read(i).tobytes() for i in range(len(part))} for part in (data.train, data.test)]
    assert not found[0] & found[1]


def test_a_copy_filed_under_another_patient_is_in_neither_part(parts):
    for folder in (parts / 'train').iterdir():
        for i, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f'TCGA-AA-000{i % 2}_{i}.png')
    for folder in (parts / 'train').iterdir():
        first = sorted(folder.iterdir())[0]
        shutil.copy(first, folder / 'TCGA-AA-0001_copy.png')
    sizes = set()
    for seed in range(4):
        data = find_data(train=str(parts / 'train'), share=0.5, seed=seed)
        contents = [{open(part.path(i), 'rb').read() for i in range(len(part))}
                    for part in (data.train, data.test)]
        assert not contents[0] & contents[1]
        assert not set(data.train_patients) & set(data.test_patients)
        sizes.add(len(data.train) + len(data.test))
    assert max(sizes) < 36 + 8  # the 8 copies, or what they are copies of
