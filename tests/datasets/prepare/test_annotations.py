"""COCO files as users write them: mended and told, or refused with every place, before training."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from openselfsup.datasets.prepare.annotations import read_coco, shared_images
from openselfsup.datasets.prepare.instances import annotations_of, decode, encode, run_lengths
from openselfsup.datasets.prepare.report import Report
from openselfsup.errors import UserError

SIDE = 40


def right() -> dict:
    """A file in order: two images of 40 x 48 px with two objects each."""
    ids = np.zeros((SIDE, 48), int)
    ids[3:10, 4:15], ids[20:30, 20:40] = 1, 2
    return dict(
        info={}, categories=[dict(id=1, name='gland')],
        images=[dict(id=i, file_name=f'{i}.png', height=SIDE, width=48) for i in (1, 2)],
        annotations=[a for i in (1, 2) for a in annotations_of(ids, i)])


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A folder of images for :func:`right`."""
    folder = tmp_path_factory.mktemp('X')
    for name, value in (('train/1.png', 10), ('train/2.png', 20), ('train/sub/3.png', 30),
                        ('test/9.png', 20)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (48, SIDE), (value,) * 3).save(folder / name)
    (folder / 'annotations').mkdir()
    return folder


def read(folder: Path, content: object, masks: bool = True, name: str = 'train'):
    path, report = folder / 'annotations' / f'{name}.json', Report('')
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_coco(path, report, masks), report


def changed(kind: str, place: int, **values) -> dict:
    """The right file with values of one entry changed; ``...`` takes the key away."""
    content = right()
    for key, value in values.items():
        if value is ...:
            del content[kind][place][key]
        else:
            content[kind][place][key] = value
    return content


WHOLE = dict(size=[SIDE, 48], counts=[0, SIDE * 48])
PROBLEMS = {
    'images without id': (changed('images', 0, id=...), 'images[0]: needs an id'),
    'id is a list': (changed('images', 0, id=[1]), 'images[0]: needs an id'),
    'id is NaN': (changed('images', 0, id=float('nan')), 'images[0]: needs an id'),
    'id is true': (changed('images', 0, id=True), 'images[0]: needs an id'),
    'two images of one id': (changed('images', 0, id=2), 'images[1] (id 2): has the id of another'),
    'two categories of one id': (dict(right(), categories=[dict(id=1), dict(id=1)]),
                                 'categories[1] (id 1): has the id of another'),
    'no category': (dict(right(), categories=[]), 'there is no category'),
    'no image': (dict(right(), images=[], annotations=[]), 'there is no image'),
    'no file_name': (changed('images', 0, file_name=...), 'images[0] (id 1): needs a file_name'),
    'file_name of no text': (changed('images', 0, file_name=7), 'needs a file_name'),
    'file_name with NUL': (changed('images', 0, file_name='a\0b'), 'needs a file_name'),
    'file_name of a lone surrogate': (changed('images', 0, file_name='\ud800'), 'file_name'),
    'one file twice': (changed('images', 0, file_name='2.png'), 'file_name of another image'),
    'missing file': (changed('images', 0, file_name='9.png'), 'No such file or directory'),
    'a folder as file': (changed('images', 0, file_name='sub'), 'Is a directory'),
    'twice the size': (changed('images', 0, height=80, width=96),
                       "images[0] (id 1) '1.png' is 48 x 40 px, not 96 x 80: the file has another"),
    'sides exchanged': (changed('images', 1, height=48, width=SIDE), 'masks would be displaced'),
    'size as text': (changed('images', 0, height='40'), 'masks would be displaced'),
    'orphan': (changed('annotations', 1, image_id=99),
               'annotations[1] (id 100002) of image 99: is of no image'),
    'image id of another type': (changed('annotations', 1, image_id='1'), 'is of no image'),
    'no image_id': (changed('annotations', 1, image_id=...), 'is of no image'),
    'no category_id': (changed('annotations', 1, category_id=...), 'is of no category'),
    'other category': (changed('annotations', 2, category_id=0),
                       "annotations[2] (id 200001) of '2.png', category 0: is of no category"),
    'iscrowd of 2': (changed('annotations', 0, iscrowd=2), 'iscrowd must be 0 or 1'),
    'ignore': (changed('annotations', 0, ignore=1), 'ignore is not known'),
    'no segmentation': (changed('annotations', 0, segmentation=...), 'has no segmentation'),
    'empty segmentation': (changed('annotations', 0, segmentation=[]), 'has no segmentation'),
    'segmentation of text': (changed('annotations', 0, segmentation='x'), 'neither polygons nor'),
    'empty mask': (changed('annotations', 0, segmentation=encode(np.zeros((SIDE, 48)))),
                   "annotations[0] (id 100001) of '1.png': its mask is empty"),
    'mask of another size': (changed('annotations', 0, segmentation=encode(np.ones((48, SIDE)))),
                             'run lengths of size [48, 40]; expected [40, 48]'),
    'runs too short': (changed('annotations', 0, segmentation=dict(WHOLE, counts=[5, 5])),
                       'run lengths of 10 pixels; expected 1920'),
    'runs too long': (changed('annotations', 0, segmentation=dict(WHOLE, counts=[5, 5000])),
                      'run lengths of 5005 pixels'),
    'negative runs': (changed('annotations', 0, segmentation=dict(WHOLE, counts=[-5, 1925])),
                      'no counts'),
    'runs of text': (changed('annotations', 0, segmentation=dict(WHOLE, counts=['5'])),
                     'no counts'),
    'runs of null': (changed('annotations', 0, segmentation=dict(WHOLE, counts=None)), 'no counts'),
    'text that is none': (changed('annotations', 0, segmentation=dict(WHOLE, counts='zzz')),
                          "text is not COCO's"),
    'text that is cut': (changed('annotations', 0, segmentation=dict(WHOLE, counts='PP')),
                         "text is not COCO's"),
    'text not of ASCII': (changed('annotations', 0, segmentation=dict(WHOLE, counts='5\u00e95')),
                          "text is not COCO's"),
    'polygon of two points': (changed('annotations', 0, segmentation=[[1, 1, 9, 9]]), 'is empty'),
    'polygon of an odd count': (changed('annotations', 0, segmentation=[[1, 1, 9, 9, 2, 3, 4]]),
                                'a polygon of 7 numbers'),
    'polygon with NaN': (changed('annotations', 0, segmentation=[[1, 1, 9, 9, 2, float('nan')]]),
                         'no list of finite numbers'),
    'polygon with text': (changed('annotations', 0, segmentation=[[1, 1, 9, 9, 2, '3']]),
                          'no list of finite numbers'),
    'polygon of points': (changed('annotations', 0, segmentation=[[[1, 1], [9, 9], [2, 3]]]),
                          'no list of finite numbers'),
    'polygon outside': (changed('annotations', 0, bbox=..., segmentation=[
        [60, 60, 70, 60, 70, 70]]), 'its mask is empty, or lies outside of 48 x 40 px'),
    'polygon far away': (changed('annotations', 0, segmentation=[[1, 1, 9, 9, 2, 1e8]]),
                         'the coordinate 1e+08'),
    'box of NaN': (changed('annotations', 0, bbox=[float('nan'), 1, 2, 3]), 'finite'),
    'box of three': (changed('annotations', 0, bbox=[1, 2, 3]), 'x, y, width, height'),
    'negative box': (changed('annotations', 0, bbox=[4, 3, -11, 7]), 'not negative'),
    'box of corners': (changed('annotations', 1, bbox=[20, 20, 40, 30]),
                       "'1.png': [20, 20, 40, 30], not [20.0, 20.0, 20.0, 10.0]: its bbox"),
    'a list': ([], 'missing, or no list of objects'),
    'null': (None, 'missing, or no list of objects'),
    'annotations missing': (dict(images=[], categories=[]), 'annotations: missing'),
    'entries of numbers': (dict(right(), annotations=[1, 2]), 'annotations: missing, or no list'),
    'no JSON': ('{"images": [', 'not valid JSON'),
    'brackets': ('[' * 100_000, 'not valid JSON'),
    'not UTF-8': ('\udcff', 'not valid JSON'),
}


@pytest.mark.parametrize('case', PROBLEMS)
def test_what_cannot_be_used_is_told_with_its_place(folder, case):
    content, told = PROBLEMS[case]
    if case == 'not UTF-8':
        (folder / 'annotations' / 'train.json').write_bytes(b'{"a\xff": 1}')
        report = Report('')
        assert read_coco(folder / 'annotations' / 'train.json', report) is None
    else:
        _, report = read(folder, content)
    assert told in '\n'.join(report.problems), report.problems
    assert all(str(folder) in line for line in report.problems)
    json.dumps(report.problems).encode()
    print(report)  # a report can be printed whatever the file holds


def test_all_problems_are_in_one_report_and_thousands_of_one_kind_in_one_line(folder):
    content = right()
    content['annotations'] *= 500
    content['annotations'][0].update(category_id=7)
    content['images'][0].update(file_name='none.png')
    _, report = read(folder, content)
    assert len(report.problems) == 2
    assert ' and 495 more: is of no category' in '\n'.join(report.problems)


def same_objects(found: dict) -> bool:
    expected = right()
    keys = ('image_id', 'category_id', 'iscrowd', 'bbox', 'area', 'segmentation')
    return [[a[k] for k in keys] for a in found['annotations']] == [
        [a[k] for k in keys] for a in expected['annotations']]


POLYGON = [[4, 3, 15, 3, 15, 10, 4, 10]]  # object 1
NOTES = {
    'nothing': (right(), None),
    'iscrowd': (changed('annotations', 0, iscrowd=...), 'the missing iscrowd is taken as 0'),
    'bbox': (changed('annotations', 0, bbox=...), 'the missing bbox is that of the mask'),
    'bbox null': (changed('annotations', 0, bbox=None), 'the missing bbox is that of the mask'),
    'bbox that counts from 1': (changed('annotations', 0, bbox=[5, 4, 11, 7]), None),
    'area': (changed('annotations', 0, area=...), 'the missing area is that of the mask'),
    'wrong area': (changed('annotations', 0, area=5), '5, not 77: has area other than its mask'),
    'id': (changed('annotations', 0, id=...), 'has no id of its own'),
    'same ids': (changed('annotations', 0, id=100002), 'has no id of its own'),
    'id 0': (changed('annotations', 0, id=0), None),
    'text as id': (changed('annotations', 0, id='a'), None),
    'sizes': (changed('images', 0, height=..., width=...),
              'the missing height is that of the file'),
    'ids of 1.0': (changed('images', 0, id=1.0), None),
    'no info': ({k: v for k, v in right().items() if k != 'info'}, None),
    'polygon': (changed('annotations', 0, segmentation=POLYGON), None),
    'one polygon, not in a list': (changed('annotations', 0, segmentation=POLYGON[0]), None),
    'a line beside a polygon': (changed('annotations', 0, segmentation=[[1, 1, 9, 9], *POLYGON]),
                                None),
    'counts as a list': (changed('annotations', 0, segmentation=dict(
        size=[SIDE, 48], counts=[163, 7] + [33, 7] * 10 + [1350])), None),
    'counts with zeros': (changed('annotations', 0, segmentation=dict(
        size=[SIDE, 48], counts=[163, 3, 0, 4] + [33, 7] * 10 + [1350, 0])), None),
}


@pytest.mark.parametrize('case', NOTES)
def test_what_can_be_mended_without_a_guess_is_mended_and_told(folder, case):
    content, note = NOTES[case]
    coco, report = read(folder, content)
    assert not report.problems and same_objects(coco.truth)
    assert bool(report.notes) == bool(note) and (not note or note in report.notes[0])
    assert [a['id'] for a in coco.truth['annotations']] == [1, 2, 3, 4]
    assert all(type(image['height']) is int for image in coco.truth['images'])


def test_an_object_written_twice_counts_once(folder):
    content = right()
    content['annotations'].append(dict(content['annotations'][1], id=5))
    coco, report = read(folder, content)
    assert not report.problems and same_objects(coco.truth)
    assert 'mask and category of another object; it counts once' in report.notes[0]


def test_images_without_objects_and_categories_that_never_occur_are_told(folder):
    content = right()
    content['annotations'] = content['annotations'][:1]
    content['categories'].append(dict(id=9, name='tumour'))
    coco, report = read(folder, content)
    assert len(coco.truth['images']) == 2 and not report.problems
    assert '1 of 2 images have no object' in report.notes[0]
    assert "no object is of category 'tumour'" in report.notes[1]


def test_a_missing_mask_is_the_box_where_boxes_are_enough(folder):
    content = changed('annotations', 0, segmentation=...)
    coco, report = read(folder, content, masks=False)
    assert not report.problems and same_objects(coco.truth)


def test_folders_in_file_names_and_back_slashes(folder):
    for name in ('sub/3.png', 'sub\\3.png'):
        coco, report = read(folder, changed('images', 0, file_name=name))
        assert not report.problems and coco.truth['images'][0]['file_name'] == 'sub/3.png'
        assert len(report.notes) == ('\\' in name)


def test_what_reaches_out_of_the_image_is_cut_off(folder):
    content = changed('annotations', 0, bbox=[-10, 5, 20, 10], area=200.0,
                      segmentation=[[-10, 5, 10, 5, 10, 15, -10, 15]])
    coco, report = read(folder, content)
    assert not report.problems
    assert coco.truth['annotations'][0]['bbox'] == [0, 5, 10, 10]
    assert coco.truth['annotations'][0]['area'] == 100


def test_equal_images_of_two_files_are_found(folder):
    train, _ = read(folder, right())
    content = dict(right(), images=[dict(id=1, file_name='9.png', height=SIDE, width=48)],
                   annotations=[])
    test, report = read(folder, content, name='test')
    assert not report.problems and shared_images(train, test) == [('2.png', '9.png')]


def test_files_of_byte_order_marks_are_read(folder):
    path, report = folder / 'annotations' / 'train.json', Report('')
    path.write_text(json.dumps(right()), encoding='utf-8-sig')
    assert same_objects(read_coco(path, report).truth)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2 ** 32 - 1),
       st.sampled_from((0, 0.02, 0.5, 1)))
def test_run_lengths_of_any_form_are_one_mask(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    rle = encode(mask)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    runs = np.diff(np.concatenate([[0], edges, [height * width]])).tolist()
    split = [part for n in runs for part in (n, 0, 0)]
    for counts in (rle['counts'], runs, split):
        assert (decode(dict(size=[height, width], counts=counts), height, width) == mask).all()
    assert run_lengths(rle, height, width) == rle
    assert coco_mask.area(rle) == mask.sum()


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=30))
def test_texts_are_the_masks_they_say_or_refused(text):
    """Decoded by the letter of the format, one character after another."""
    counts, at, valid = [], 0, bool(text)
    while valid and at < len(text):
        value = place = 0
        while True:
            if at >= len(text):
                valid = False
                break
            code = ord(text[at]) - 48
            value |= (code & 31) << 5 * place
            at, place = at + 1, place + 1
            if not code & 32:
                value -= (1 << 5 * place) if code & 16 else 0
                break
        valid = valid and place <= 7  # more cannot be a number of pixels
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    valid = valid and min(counts, default=-1) >= 0 and sum(counts) == 30
    try:
        found = decode(dict(size=[5, 6], counts=text), 5, 6)
    except UserError:
        assert not valid
        return
    flat = np.repeat(np.arange(len(counts)) % 2, counts)
    assert valid and (found == flat.reshape(6, 5).T).all()
