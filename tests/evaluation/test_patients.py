"""Patients: told from paths, never in both parts, and one sentence where that cannot be."""

import re
import shutil

import pytest

from openselfsup.errors import UserError
from openselfsup.evaluation.data import find_data
from openselfsup.evaluation.patients import patients_of


def test_patients_from_paths():
    paths = ['a/TCGA-A6-2671-01Z.png', 'b/TCGA-A6-2671-02.png', 'b/TCGA-AA-0001.png']
    assert patients_of(paths).tolist() == ['TCGA-A6-2671', 'TCGA-A6-2671', 'TCGA-AA-0001']
    assert patients_of(['c/x.png']).tolist() == ['']
    assert patients_of(['p1_a.png', 'p2_b.png'], r'(p\d+)_').tolist() == ['p1', 'p2']
    assert patients_of(['p1_a.png', 'b.png'], r'p\d').tolist() == ['p1', '']
    assert patients_of(['a.png', 'b.png'], r'(p)?').tolist() == ['', '']
    # VAL tiles of NCT-CRC-HE are called CLASS-TCGA-XXXXXXXX: that is no patient.
    assert patients_of(['ADI-TCGA-AAICEQFN.tif']).tolist() == ['']


def name(root, of):
    """Copy-safe renaming: ``of(class, number)`` is the new stem of each tile of a part."""
    for folder in sorted(root.iterdir()):
        for i, path in enumerate(sorted(folder.iterdir())):
            path.rename(path.with_name(f'{of(folder.name, i)}_{i}.png'))


@pytest.fixture
def parts(split, tmp_path):
    return shutil.copytree(split, tmp_path / 'data')


def find(parts, **options):
    return find_data(train=str(parts / 'train'), test=str(parts / 'test'), **options)


def test_a_patient_in_both_parts_is_refused_or_a_warning(parts):
    name(parts / 'train', lambda c, i: f'TCGA-AA-000{i % 3}-01')
    name(parts / 'test', lambda c, i: f'TCGA-AA-000{2 + i % 3}-01')
    with pytest.raises(UserError) as error:
        find(parts)
    sentence = '1 of 3 test patients, with 8 of 15 test tiles, are in the training part too: ' \
               'TCGA-AA-0002'
    assert sentence in str(error.value) and '--allow_overlap' in str(error.value)
    assert '\n' not in str(error.value)
    data = find(parts, allow_overlap=True)
    assert any(note.startswith('WARNING: ' + sentence) for note in data.notes)
    assert data.shared == dict(patients=1, tiles=0)


def test_patients_that_some_paths_tell_are_compared_too(parts):
    next((parts / 'train/TUMOR').iterdir()).rename(parts / 'train/TUMOR/TCGA-AA-0001-01.png')
    next((parts / 'test/EMPTY').iterdir()).rename(parts / 'test/EMPTY/TCGA-AA-0001-02.png')
    with pytest.raises(UserError, match='1 of 1 test patients, with 1 of 15 test tiles'):
        find(parts)
    notes = find(parts, allow_overlap=True).notes
    assert any('tell no patients' in note for note in notes)
    assert '2 of 51 paths do tell a patient.' in notes


def test_disjoint_patients_are_no_warning(parts):
    name(parts / 'train', lambda c, i: f'TCGA-AA-000{i % 3}-01')
    name(parts / 'test', lambda c, i: f'TCGA-BB-000{i % 2}-01')
    data = find(parts)
    assert data.shared == dict(patients=0, tiles=0)
    assert not any('WARNING' in note for note in data.notes)


def test_one_test_patient_has_no_interval_over_patients(parts):
    name(parts / 'train', lambda c, i: f'TCGA-AA-000{i % 3}-01')
    name(parts / 'test', lambda c, i: 'TCGA-BB-0001-01')
    assert any(note.startswith('WARNING: all test tiles are of one patient')
               for note in find(parts).notes)


@pytest.mark.parametrize('pattern, words', [
    ('(p', ["'(p' is no regular expression: missing )", "_(P[0-9]+)_"]),
    ('nothing', ["'nothing' finds no patient in 51 of 51 paths, such as "]),
    (r'(image_00\d)', ['finds no patient in', 'of 51 paths']),
    ('(t)', ["'(t)' finds the same patient, 't', in all 51 paths, such as "]),
])
def test_a_pattern_that_tells_no_patients_apart_is_refused(parts, pattern, words):
    with pytest.raises(UserError) as error:
        find(parts, patient_pattern=pattern)
    text = str(error.value)
    assert text.startswith('--patient_pattern: ') and '\n' not in text
    assert all(word in text for word in words), text
    if 'finds no patient' in text:  # the path that is named is one of those
        assert not re.search(pattern, text.partition('such as ')[2].partition(';')[0])


@pytest.mark.parametrize('of, words', [
    (lambda c, i: 'TCGA-AA-0001', ["all 36 tiles are of one patient, 'TCGA-AA-0001'"]),
    (lambda c, i: f'TCGA-{c[:2]}-0001', ["each of the 8 patients is all that the training part has "
                                         "of some class: 'ADIPOSE' is of 'TCGA-AD-0001' alone",
                                         'and 4 more']),
])
def test_patients_that_cannot_be_held_out_are_said(parts, of, words):
    name(parts / 'train', of)
    with pytest.raises(UserError) as error:
        find_data(train=str(parts / 'train'), share=0.3)
    text = str(error.value)
    assert text.startswith('--holdout: no patient can be held out: ') and '\n' not in text
    assert 'expected two patients or more of each class' in text
    assert all(word in text for word in words), text


def test_a_class_of_one_patient_stays_in_training(parts):
    """Two patients, one of whom alone has a class: he is the one that stays."""
    name(parts / 'train', lambda c, i: f'TCGA-AA-000{1 if c == "TUMOR" else i % 2}')
    for seed in range(4):
        data = find_data(train=str(parts / 'train'), share=0.3, seed=seed)
        assert set(data.train.labels) == set(range(8))
        assert set(data.test_patients) == {'TCGA-AA-0000'}
        assert any('whole patients, 1 of 2, with' in note for note in data.notes)
        assert any('The test has no tile of TUMOR' in note for note in data.notes)
