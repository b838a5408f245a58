"""Which tiles a source finds, in what order, with which labels; and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openselfsup.datasets.sources import ImageFolder, ImageList
from openselfsup.errors import UserError
from openselfsup.registry import SOURCES

DEMO = Path(__file__).parents[2] / 'data/demo'
CLASSES = ['ADIPOSE', 'COMPLEX', 'DEBRIS', 'EMPTY', 'LYMPHO', 'MUCOSA', 'STROMA', 'TUMOR']


def tile(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (40, 32), (value, value, value)).save(path)


def lines(tmp_path: Path, text: str) -> str:
    path = tmp_path / 'train.txt'
    path.write_text(text, encoding='utf-8')
    return str(path)


# --- ImageFolder ---

def test_the_demo_classes_are_labelled_by_name():
    source = ImageFolder(str(DEMO / 'kather2016'))
    assert len(source) == 51 and source.classes == CLASSES
    assert np.bincount(source.labels).tolist() == [9, 7, 6, 5, 6, 5, 4, 9]
    for i in range(len(source)):
        assert Path(source.path(i)).parent.name == CLASSES[source.label(i)]
    assert source.paths == sorted(source.paths)
    assert source.read(50).shape == (224, 224, 3)
    assert len(source.check()) == 51


def test_folder_without_labels_is_recursive_and_sorted(tmp_path):
    for name in ('b/z.png', 'b/a/y.JPG', 'a.tif', 'c.bmp', '.hidden/x.png', 'b/._a.png'):
        tile(tmp_path / name)
    (tmp_path / 'b/notes.txt').write_text('no tile')
    source = ImageFolder(str(tmp_path), labels=False)
    names = [Path(path).relative_to(tmp_path).as_posix() for path in source.paths]
    assert names == ['a.tif', 'b/a/y.JPG', 'b/z.png', 'c.bmp']
    assert source.labels is None and source.label(0) is None and source.classes is None


def test_flat_folder_has_no_labels():
    source = ImageFolder(str(DEMO / 'cmu1'))
    assert len(source) == 70 and source.labels is None


def test_labels_that_must_be_there_are_asked_for():
    with pytest.raises(UserError, match='these tiles have no labels'):
        ImageFolder(str(DEMO / 'kather2016'), labels=False).require_labels()
    with pytest.raises(UserError, match='the labels of these tiles have no names'):
        ImageFolder(str(DEMO / 'kather2016'), labels=False).require_classes()
    named = ImageFolder(str(DEMO / 'kather2016'))
    assert named.require_labels() is named.labels and named.require_classes() is named.classes


def test_several_roots_share_their_classes(tmp_path):
    tile(tmp_path / 'one/TUM/a.png')
    tile(tmp_path / 'one/LYM/slide 1/b.png')
    tile(tmp_path / 'two/ADI/c.png')
    tile(tmp_path / 'two/TUM/a.png')
    source = ImageFolder([str(tmp_path / 'one'), str(tmp_path / 'two')])
    assert source.classes == ['ADI', 'LYM', 'TUM']
    assert source.labels.tolist() == [1, 2, 0, 2]
    assert [Path(p).parts[-3:][0] for p in source.paths[1::2]] == ['one', 'two']


def test_classes_fix_the_order_of_the_labels(tmp_path):
    for name in ('ADI', 'BACK'):
        tile(tmp_path / name / 'a.png')
    source = ImageFolder(str(tmp_path), classes=['BACK', 'ADI', 'DEB'])
    assert source.labels.tolist() == [1, 0] and source.classes == ['BACK', 'ADI', 'DEB']
    with pytest.raises(UserError, match="folder 'BACK' is none.*did you mean 'BACKGROUND'"):
        ImageFolder(str(tmp_path), classes=['ADI', 'BACKGROUND'])
    with pytest.raises(UserError, match='no tile is labelled'):
        ImageFolder(str(tmp_path), classes=['ADI', 'BACK'], labels=False)


def test_tiles_beside_class_folders(tmp_path):
    tile(tmp_path / 'TUM/a.png')
    for i in range(12):
        tile(tmp_path / f'loose{i:02d}.png')
    with pytest.raises(UserError, match=r'(?s)12 tiles lie beside.*loose09.png.*and 2 more') as e:
        ImageFolder(str(tmp_path))
    assert 'loose10' not in str(e.value) and 'labels=False' in str(e.value)
    assert len(ImageFolder(str(tmp_path), labels=False)) == 13


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    tile(tmp_path / 'elsewhere/a.png')
    tile(tmp_path / 'root/own/b.png')
    (tmp_path / 'root/link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'root/own/circle').symlink_to(tmp_path / 'root')
    source = ImageFolder(str(tmp_path / 'root'))
    assert [Path(p).name for p in source.paths] == ['a.png', 'b.png']
    assert source.classes == ['link', 'own']


def test_missing_and_empty_folders(tmp_path):
    (tmp_path / 'tiles').mkdir()
    with pytest.raises(UserError, match="no such folder; did you mean 'tiles'"):
        ImageFolder(str(tmp_path / 'tile'))
    with pytest.raises(UserError, match='not one tile'):
        ImageFolder(str(tmp_path / 'tiles'))
    with pytest.raises(UserError, match='no root'):
        ImageFolder([])


# --- ImageList ---

def test_the_demo_lists():
    train = ImageList(str(DEMO / 'meta/train.txt'), str(DEMO))
    assert len(train) == 170 and train.labels is None
    assert len(train.check()) == 170
    labeled = ImageList(str(DEMO / 'meta/labeled.txt'), str(DEMO), classes=CLASSES)
    folder = ImageFolder(str(DEMO / 'kather2016'))
    assert labeled.paths == folder.paths and labeled.labels.tolist() == folder.labels.tolist()
    assert labeled.label(50) == 7 and labeled.classes == CLASSES
    test = ImageList(str(DEMO / 'meta/test.txt'), str(DEMO), classes=CLASSES)
    folder = ImageFolder(str(DEMO / 'kather2016_test'))
    assert test.paths == folder.paths and test.labels.tolist() == folder.labels.tolist()
    assert np.bincount(test.labels).tolist() == [9, 6, 6, 4, 6, 5, 4, 9]


def test_list_keeps_its_order_spaces_and_odd_lines(tmp_path):
    text = '\ufeffz/tile 2.png 3\r\n\r\n  a/tile.png\t0  \nc 1 d/x.TIF   12\n'
    source = ImageList(lines(tmp_path, text), str(tmp_path))
    assert [Path(path).relative_to(tmp_path).as_posix() for path in source.paths] == [
        'z/tile 2.png', 'a/tile.png', 'c 1 d/x.TIF']
    assert source.labels.tolist() == [3, 0, 12]
    source = ImageList(lines(tmp_path, 'a 1/tile 1.png\nb.png'))
    assert source.paths == ['a 1/tile 1.png', 'b.png'] and source.labels is None


def test_list_with_several_roots(tmp_path):
    tile(tmp_path / 'one/a.png')
    tile(tmp_path / 'two/a.png')
    tile(tmp_path / 'two/b.png')
    roots = [str(tmp_path / 'one'), str(tmp_path / 'two')]
    source = ImageList(lines(tmp_path, 'b.png\na.png\n'), roots)
    assert source.paths == [str(tmp_path / 'two/b.png'), str(tmp_path / 'one/a.png')]


@pytest.mark.parametrize('line, what', [
    ('b.png tumor', "the label 'tumor' is not a whole number"),
    ('b.png -1', "the label '-1' is not"), ('b.png 1.0', "the label '1.0' is not"),
    ('b.png 0 1', "'b.png 0 1' names no file"), ('b.svs 1', 'names no file ending in .tif'),
    ('b 3', "'b 3' names no file"), ('12', 'names no file'),
    ('b.png 9', 'the label 9 is not below 2'), ('b.png', 'some lines have a label')])
def test_bad_lines_are_reported_by_number(line, what, tmp_path):
    path = lines(tmp_path, f'a.png 1\n\n{line}\n')
    with pytest.raises(UserError) as caught:
        ImageList(path, classes=['x', 'y'])
    assert f'{path}:3: ' in str(caught.value) and what in str(caught.value)
    assert caught.value.where == path


def test_all_bad_lines_are_counted_and_ten_are_shown(tmp_path):
    path = lines(tmp_path, 'a.png 0\n' + 'b.png tumor\n' * 15)
    with pytest.raises(UserError, match='(?s)15 lines .*:11: .*and 5 more') as caught:
        ImageList(path)
    assert ':12: ' not in str(caught.value)


def test_missing_list_and_root(tmp_path):
    with pytest.raises(UserError, match='no such list'):
        ImageList(str(tmp_path / 'train.txt'))
    with pytest.raises(UserError, match='no such folder'):
        ImageList(lines(tmp_path, 'a.png'), str(tmp_path / 'nowhere'))
    with pytest.raises(UserError, match='not one tile'):
        ImageList(lines(tmp_path, '\n'))


# --- both ---

def test_check_reports_all_bad_tiles_at_once(tmp_path):
    for i in range(70):
        tile(tmp_path / f'{i:02d}.tif', value=i)
    for i in range(12):
        (tmp_path / f'bad{i:02d}.png').write_bytes(b'not a PNG')
    source = ImageFolder(str(tmp_path))
    source.paths.append(str(tmp_path / 'gone.png'))
    with pytest.raises(UserError) as caught:
        source.check()
    text = str(caught.value)
    assert '13 of 83 tiles cannot be used' in text and 'and 3 more' in text
    assert 'bad09.png: neither TIFF' in text and 'bad10.png' not in text


def test_built_by_name():
    source = SOURCES.build(dict(type='ImageFolder', root=str(DEMO / 'kather2016')))
    assert len(source) == 51
    with pytest.raises(UserError, match="missing.*'root'"):
        SOURCES.build(dict(type='ImageFolder', rot='x'))
