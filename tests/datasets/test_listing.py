"""What a folder holds is listed by one function: nothing lost, nothing of a system's own."""

import logging
import os
import re
from pathlib import Path

import pytest
from test_sources import tile

from openselfsup.datasets import LabeledTileDataset, Mixed, TileDataset, Windows, listing, pack
from openselfsup.datasets.listing import files_in, list_class_folders, list_files
from openselfsup.datasets.prepare.report import Report
from openselfsup.datasets.prepare.tiles import prepare_folder
from openselfsup.datasets.sources import ImageFolder, ImageList
from openselfsup.engine.building import tell_data
from openselfsup.engine.hooks import KNNProbeHook
from openselfsup.errors import UserError, shown
from openselfsup.evaluation.data import open_source
from openselfsup.models.method import BaseMethod

SUFFIXES = ('.png',)


def test_hidden_folders_and_those_of_systems_are_passed_over_and_counted(tmp_path):
    for name in ('A/1.png', 'B/2.PNG', '.ipynb_checkpoints/1-checkpoint.png', '__MACOSX/._1.png',
                 'A/@eaDir/1.png', 'A/._1.png'):
        tile(tmp_path / name)
    (tmp_path / 'B/Thumbs.db').touch()
    (tmp_path / 'README').touch()
    (tmp_path / 'C').mkdir()
    found, classes = list_class_folders(tmp_path, SUFFIXES)
    assert (found.paths, classes) == (['A/1.png', 'B/2.PNG'], ['A', 'B'])
    assert found.hidden == 4 and found.empty == ['C']
    assert found.others == {'.db': 1, '': 1}
    assert found.passed_over() == ('1 .db, 1 without an ending, 4 hidden, '
                                   'folders without a file of these: C')
    source = ImageFolder(str(tmp_path))
    assert source.classes == ['A', 'B'] and source.passed_over == found.passed_over()


def test_a_linked_class_folder_is_a_class(tmp_path):
    tile(tmp_path / 'elsewhere/2.png')
    tile(tmp_path / 'root/A/1.png')
    (tmp_path / 'root/B').symlink_to(tmp_path / 'elsewhere')
    assert list_class_folders(tmp_path / 'root', SUFFIXES)[1] == ['A', 'B']


def test_a_link_to_a_folder_above_is_not_followed(tmp_path, caplog):
    tile(tmp_path / 'A/1.png')
    (tmp_path / 'A/up').symlink_to(tmp_path)
    (tmp_path / 'A/self').symlink_to(tmp_path / 'A')
    assert list_files(tmp_path, SUFFIXES).paths == ['A/1.png']
    assert not caplog.records


def test_one_folder_under_two_names_is_said(tmp_path, caplog):
    tile(tmp_path / 'A/1.png')
    (tmp_path / 'B').symlink_to(tmp_path / 'A')
    with caplog.at_level(logging.WARNING):
        assert list_files(tmp_path, SUFFIXES).paths == ['A/1.png', 'B/1.png']
    assert 'B and A are one folder' in caplog.text


def test_a_link_to_nowhere_is_an_error_and_no_smaller_data_set(tmp_path):
    tile(tmp_path / 'A/1.png')
    (tmp_path / 'B').symlink_to(tmp_path / 'unmounted')
    with pytest.raises(UserError, match='B.*this link leads nowhere'):
        list_files(tmp_path, SUFFIXES)


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    tile(tmp_path / 'A/1.png')
    tile(tmp_path / 'B/1.png')
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == 'B':
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(listing.os, 'scandir', refuse)  # root may read everything
    with pytest.raises(UserError, match='B: this folder cannot be read: Permission denied'):
        ImageFolder(str(tmp_path))


def test_without_a_tile_what_there_is_is_told(tmp_path):
    for name in ('a.svs', 'b.svs', 'c.txt'):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r'not one tile.*there are: 2 \.svs, 1 \.txt'):
        ImageFolder(str(tmp_path))


def test_a_file_in_place_of_a_folder_and_a_relative_path(tmp_path, monkeypatch):
    tile(tmp_path / 'tiles/1.png')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='this is a file, not a folder'):
        list_files('tiles/1.png', SUFFIXES)
    with pytest.raises(UserError) as caught:
        list_files('tils', SUFFIXES)
    assert str(caught.value) == f"tils (from {tmp_path}): no such folder; did you mean 'tiles'?"


def test_a_link_to_itself_is_told(tmp_path):
    tile(tmp_path / 'A/1.png')
    (tmp_path / 'A/loop').symlink_to('loop')
    with pytest.raises(UserError, match='A/loop: this link cannot be followed: .*; expected a'):
        list_files(str(tmp_path), SUFFIXES)


def test_files_come_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        tile(tmp_path / f'train_{number}.png')
    assert [p.stem for p in files_in(tmp_path, SUFFIXES)] == ['train_1', 'train_2', 'train_10']


def test_class_folders_that_differ_in_case_are_said(tmp_path, caplog):
    for name in ('tum', 'TUM'):
        tile(tmp_path / name / '1.png')
    with caplog.at_level(logging.WARNING):
        assert ImageFolder(str(tmp_path)).classes == ['TUM', 'tum']
    assert "'TUM', 'tum' are different classes" in caplog.text


def test_parts_of_a_data_set_are_no_classes(tmp_path):
    for part in ('Train', 'val', 'test'):
        for name in ('A', 'B'):
            tile(tmp_path / 'LAB' / part / name / '1.png')
    root = str(tmp_path / 'LAB')
    told = re.escape(f'{root}: Train, test, val are parts of a data set and no classes: each holds '
                     f'the folders A, B; expected one of the parts: {root}/Train or {root}/test')
    source = ImageFolder(root)  # trains without labels as before
    assert len(source) == len(ImageFolder(root, labels=False)) == 6
    assert len(Mixed([source, source])) == 12
    dataset = TileDataset(source, dict(type='ViewRecipe', size=32, steps=[]), n_views=2)
    tell_data(BaseMethod(), dataset)
    assert pack(source, tmp_path / 'packed').labels is None
    labelled = BaseMethod()
    labelled.batch_keys = ('label',)
    for asks in (source.require_labels, lambda: LabeledTileDataset(source, 32),
                 lambda: list_class_folders(root, SUFFIXES), lambda: open_source(root),
                 lambda: ImageFolder(root, classes=['A', 'B']),
                 lambda: Windows(root, size=32, labels=True),
                 lambda: KNNProbeHook(dict(type='ImageFolder', root=root)),
                 lambda: tell_data(labelled, dataset),
                 lambda: prepare_folder(Path(root), tmp_path / 'out', Report(''))):
        with pytest.raises(UserError, match=told):
            asks()
    assert ImageFolder(f'{root}/Train').require_labels().tolist() == [0, 1]


@pytest.mark.parametrize('paths', [
    ('TUM/P1/1.png', 'TUM/P2/1.png', 'STR/P1/1.png', 'STR/P2/1.png'),  # patients
    ('train/P1/1.png', 'train/P2/1.png', 'test/P3/1.png', 'test/P4/1.png'),
    ('train/A/1.png', 'test/A/1.png'),
    ('train/A/1.png', 'train/B/1.png', 'train/1.png', 'test/A/1.png', 'test/B/1.png'),
    ('train/A/1.png', 'train/B/1.png', 'station/A/1.png', 'station/B/1.png')])
def test_folders_that_may_be_classes_stay_classes(tmp_path, paths):
    for path in paths:
        tile(tmp_path / path)
    names = sorted({path.split('/')[0] for path in paths})
    assert list_class_folders(tmp_path, SUFFIXES)[1] == names
    source = ImageFolder(str(tmp_path))
    assert source.classes == names and len(source.require_labels()) == len(paths)


# ------------------------------------------------------------------ lists

@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le+mark',
                                      'utf-16-be+mark'])
@pytest.mark.parametrize('ending', ['\n', '\r\n', '\r'])
def test_lists_of_other_programs_are_read(tmp_path, encoding, ending):
    text = ending.join(['größe 1.png 0', 'b\x85c.png\t1', ''])
    name, _, mark = encoding.partition('+')
    data = ('\ufeff' + text if mark else text).encode(name)
    (tmp_path / 'list.txt').write_bytes(data)
    source = ImageList(str(tmp_path / 'list.txt'), str(tmp_path))
    assert [Path(p).name for p in source.paths] == ['größe 1.png', 'b\x85c.png']
    assert source.labels.tolist() == [0, 1]


def test_a_list_holds_names_as_they_are_on_the_disk(tmp_path):
    name = os.fsdecode(b'gr\xf6\xdfe.png')
    tile(tmp_path / 'ok.png')
    (tmp_path / 'ok.png').rename(tmp_path / name)
    (tmp_path / 'list.txt').write_bytes(b'gr\xf6\xdfe.png\n')
    source = ImageList(str(tmp_path / 'list.txt'), str(tmp_path))
    assert len(source.check()) == 1 and source.read(0).shape == (32, 40, 3)


def test_a_latin_1_list_of_names_in_utf_8_says_how_to_convert_it(tmp_path):
    tile(tmp_path / 'größe.png')
    path = tmp_path / 'list.txt'
    path.write_bytes('größe.png 0\n'.encode('latin-1'))
    with pytest.raises(UserError, match=r'list\.txt: .*not UTF-8.*iconv -f'):
        ImageList(str(path), str(tmp_path))


@pytest.mark.parametrize('data, words', [
    ('a.png 0\n'.encode('utf-16-le'), 'NUL bytes.*iconv -f UTF-16LE'),
    ('a.png 0\n'.encode('utf-16')[:-1], 'UTF-16 file is damaged'),
    (b'a.png,0\n', 'parted by a space'), (b'"a.png"\n', 'without quotes')])
def test_other_lists_are_refused_in_a_sentence(tmp_path, data, words):
    (tmp_path / 'list.txt').write_bytes(data)
    with pytest.raises(UserError, match=words):
        ImageList(str(tmp_path / 'list.txt'))


def test_back_slashes_of_windows_are_understood(tmp_path):
    tile(tmp_path / 'TUM/a.png')
    tile(tmp_path / 'x\\y.png')  # here a name like any other
    (tmp_path / 'list.txt').write_text('TUM\\a.png\nx\\y.png\n')
    source = ImageList(str(tmp_path / 'list.txt'), str(tmp_path))
    assert source.paths == [str(tmp_path / 'TUM/a.png'), str(tmp_path / 'x\\y.png')]
    assert len(source.check()) == 2


def test_bytes_that_are_no_text_are_shown():
    assert shown(os.fsdecode(b'gr\xf6\xdfe')) == r'gr\xf6\xdfe'
    assert shown('größe \ud800') == r'größe \ud800'
