"""Finding labelled tiles, and one clear sentence for what is wrong with them."""

import shutil

import cv2
import h5py
import numpy as np
import pytest

from openselfsup.datasets.pcam import PCam
from openselfsup.errors import UserError
from openselfsup.evaluation.data import find_data


@pytest.fixture
def copy(split, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(split, tmp_path / 'data')


def test_layouts_are_found(copy):
    data = find_data(str(copy))
    assert len(data.train) == 36 and len(data.test) == 15 and len(data.classes) == 8
    assert any('no patients' in note for note in data.notes)
    (copy / 'train').rename(copy / 'NCT-CRC-HE-100K')
    with pytest.raises(UserError, match="'train' is missing beside 'test'|'CRC-VAL-HE-7K' is"):
        find_data(str(copy))
    (copy / 'test').rename(copy / 'CRC-VAL-HE-7K')
    assert len(find_data(str(copy)).test) == 15
    pair = find_data(train=str(copy / 'NCT-CRC-HE-100K'), test=str(copy / 'CRC-VAL-HE-7K'))
    assert len(pair.train) == 36


def test_labels_follow_the_classes_of_train(copy):
    shutil.rmtree(copy / 'test/ADIPOSE')
    data = find_data(str(copy))
    for i in range(len(data.test)):
        assert data.classes[data.test.label(i)] in data.test.path(i)
    assert any(note.startswith('The test has no tile of ADIPOSE: scores are means over the 7')
               for note in data.notes)


@pytest.mark.parametrize('spoil, words', [
    (lambda d: (d / 'test/TUMOR').rename(d / 'test/TUMOUR'),
     ["the folder 'TUMOUR' is none of the classes", "did you mean 'TUMOR'"]),
    (lambda d: (d / 'train/NECROSIS').mkdir(), ['NECROSIS', 'this class folder holds no tile']),
    (lambda d: [shutil.rmtree(p) for p in (d / 'train').iterdir()], ['there is not one tile']),
    (lambda d: [shutil.rmtree(p) for p in (d / 'train').iterdir() if p.name != 'TUMOR'],
     ["there is only the class 'TUMOR'"]),
    (lambda d: shutil.rmtree(d / 'test'), ["'test' is missing beside 'train'"]),
    (lambda d: [shutil.rmtree(p) for p in d.iterdir()], ['no known layout; found nothing']),
    (lambda d: (d / 'train/TUMOR/broken.png').write_bytes(b'no image'), ['broken.png', 'neither']),
])
def test_mistakes_are_one_sentence(copy, spoil, words):
    spoil(copy)
    with pytest.raises(UserError) as error:
        find_data(str(copy))
    for word in words:
        assert word in str(error.value)


def test_flat_folders_have_no_classes(copy):
    with pytest.raises(UserError, match='these tiles lie in no class folders'):
        find_data(train=str(copy / 'train/TUMOR'), share=0.5)


def test_the_same_tiles_in_both_parts(copy):
    with pytest.raises(UserError, match='36 tiles are in the training part and in the test'):
        find_data(train=str(copy / 'train'), test=str(copy / 'train'))


def test_mixed_sizes_are_said(copy):
    path = next((copy / 'train/TUMOR').iterdir())
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (150, 100)))
    assert any(note.startswith('Tiles of 2 sizes: 224 x 224 (50), 150 x 100 (1)')
               for note in find_data(str(copy)).notes)


def test_holding_out(copy):
    data = find_data(train=str(copy / 'train'), share=0.3)
    assert len(data.train) + len(data.test) == 36
    assert set(data.train.labels) == set(data.test.labels) == set(range(8))
    paths = [{part.path(i) for i in range(len(part))} for part in (data.train, data.test)]
    assert not paths[0] & paths[1]
    with pytest.raises(UserError, match='nothing to test on'):
        find_data(train=str(copy / 'train'))
    with pytest.raises(UserError, match='1.5 is no share'):
        find_data(train=str(copy / 'train'), share=1.5)


def test_patients_are_told_from_paths_and_stay_whole(copy):
    for folder in (copy / 'train').iterdir():
        for i, path in enumerate(sorted(folder.iterdir())):
            path.rename(path.with_name(f'patient{i % 4}_{path.name}'))
    data = find_data(train=str(copy / 'train'), share=0.3, patient_pattern=r'(patient\d)')
    assert not set(data.train_patients) & set(data.test_patients)
    assert not any('no patients' in note for note in data.notes)
    assert any('whole patients' in note for note in data.notes)


@pytest.fixture
def pcam(tmp_path):
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 255, (12, 96, 96, 3), np.uint8)
    for part in ('train', 'test'):
        stem = f'camelyonpatch_level_2_split_{part}'
        with h5py.File(tmp_path / f'{stem}_x.h5', 'w') as file:
            file['x'] = tiles if part == 'train' else 255 - tiles
        with h5py.File(tmp_path / f'{stem}_y.h5', 'w') as file:
            file['y'] = (np.arange(12) % 2).reshape(-1, 1, 1, 1).astype(np.uint8)
    return tmp_path, tiles


def test_pcam_files_are_read_as_they_are(pcam):
    folder, tiles = pcam
    data = find_data(str(folder), layout='PCam')
    assert data.classes == ['neg', 'pos'] and len(data.train) == len(data.test) == 12
    assert np.array_equal(data.train.read(5), tiles[5]) and data.train.label(5) == 1
    assert data.train.path(5).endswith('train_x.h5#5')


def test_pcam_is_no_test_of_other_classes(pcam, copy):
    """Its labels 0 and 1 would be taken for the first two classes of the training part."""
    with pytest.raises(UserError, match='test_x.h5: its classes are neg and pos, those of the '
                                        'training part .*STROMA'):
        find_data(train=str(copy / 'train'),
                  test=str(pcam[0] / 'camelyonpatch_level_2_split_test_x.h5'))


def test_pcam_mistakes(pcam):
    folder, _ = pcam
    x = folder / 'camelyonpatch_level_2_split_train_x.h5'
    with pytest.raises(UserError, match="no data set 'y'"):
        PCam(str(x), str(x))
    x.rename(f'{x}.gz')
    with pytest.raises(UserError, match='still packed; expected gunzip'):
        find_data(str(folder))


def test_pcam_folders_are_a_layout(copy):
    for part in ('train', 'test'):
        for folder in (copy / part).iterdir():
            if folder.name not in ('TUMOR', 'STROMA'):
                shutil.rmtree(folder)
        (copy / part / 'TUMOR').rename(copy / part / 'pos')
        (copy / part / 'STROMA').rename(copy / part / 'neg')
    assert find_data(str(copy), layout='PCam').classes == ['neg', 'pos']
    with pytest.raises(UserError, match="no layout is called 'PKam'.*did you mean 'PCam'"):
        find_data(str(copy), layout='PKam')
