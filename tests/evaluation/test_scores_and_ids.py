"""Perfect predictions have perfect scores, however the file of the truth is written."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from openselfsup.datasets.prepare.annotations import read_coco
from openselfsup.datasets.prepare.instances import annotations_of, encode
from openselfsup.datasets.prepare.report import Report
from openselfsup.errors import UserError
from openselfsup.transfer.instance.metrics import coco_ap, evaluate_instances, truth_map

SIDES = ((40, 48), (33, 64), (50, 36))

numbers = st.integers(-3, 10) | st.integers(2 ** 31 - 2, 2 ** 80)
names = st.text(st.characters(exclude_categories=['Cs']), max_size=4)


def ids_of(count: int) -> st.SearchStrategy[list]:
    """Different ids: 0, negative, huge, of text, or all of these."""
    return st.lists(numbers | names, min_size=count, max_size=count, unique=True)


@st.composite
def written(draw: st.DrawFn) -> dict:
    """A valid COCO file as somebody's tool may write it."""
    count, kinds = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    image_ids, category_ids = draw(ids_of(count)), draw(ids_of(kinds))
    rng = np.random.default_rng(draw(st.integers(0, 2 ** 32 - 1)))
    names = [f'{"sub/" if draw(st.booleans()) else ""}{i}.png' for i in range(count)]
    images, annotations = [], []
    for image_id, name, (height, width) in zip(image_ids, names, SIDES):
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
        ids = np.zeros((height, width), int)
        for number in range(1, draw(st.integers(0, 4)) + 1):  # none is an empty image
            y, x = rng.integers(0, height - 4), rng.integers(0, width - 4)
            ids[y:y + rng.integers(2, 20), x:x + rng.integers(2, 20)] = number
        for annotation in annotations_of(ids, 1, draw(st.sampled_from(('rle', 'polygon')))):
            annotation.update(image_id=image_id, category_id=draw(st.sampled_from(category_ids)))
            for key in draw(st.sets(st.sampled_from(('iscrowd', 'bbox', 'area', 'id')))):
                del annotation[key]
            annotations.append(annotation)
        if draw(st.booleans()):  # a crowd region over half of the image
            crowd = np.zeros((height, width), np.uint8)
            crowd[:height // 2] = 1
            annotations.append(dict(image_id=image_id, category_id=category_ids[0], iscrowd=1,
                                    id=77, segmentation=encode(crowd)))
    numbered = [a for a in annotations if 'id' in a]
    for annotation, number in zip(numbered, draw(ids_of(len(numbered)))):
        annotation['id'] = number
    return dict(
        images=draw(st.permutations(images)), annotations=draw(st.permutations(annotations)),
        categories=[dict(id=i, **draw(st.sampled_from(({}, dict(name='gland')))))
                    for i in category_ids])


def perfect(truth: dict) -> list[dict]:
    """What a model finds that finds every object exactly."""
    return [dict(image_id=a['image_id'], category_id=a['category_id'], bbox=a['bbox'], score=0.9,
                 segmentation=a['segmentation'])
            for a in truth['annotations'] if not a['iscrowd']]


@settings(max_examples=30, deadline=None)
@given(written(), st.randoms(use_true_random=False))
def test_perfect_predictions_have_perfect_scores_whatever_the_file(content, random):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for image in content['images']:
            path = folder / 'test' / image['file_name']
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (image['width'], image['height'])).save(path)
        (folder / 'annotations').mkdir()
        path, report = folder / 'annotations' / 'test.json', Report('')
        path.write_text(json.dumps(content))
        coco = read_coco(path, report)
    assert not report.problems
    truth = coco.truth
    assert [i['id'] for i in truth['images']] == [i['id'] for i in content['images']]
    results = perfect(truth)
    random.shuffle(results)
    subset = dict(one=[truth['images'][0]['id']])
    outcome = evaluate_instances(truth, json.loads(json.dumps(results)), subset)
    for name, scores in outcome['scores'].items():
        own = [a for a in truth['annotations'] if not a['iscrowd'] and (
            name == 'all' or a['image_id'] == subset['one'][0])]
        expected = pytest.approx(1) if own else None
        for kind in ('bbox', 'segm'):
            assert all(scores[kind][key] == expected for key in ('AP', 'AP50', 'AP75'))
        objects = scores['objects']
        assert [objects[key] for key in ('f1', 'dice', 'aji', 'pq')] == pytest.approx([1] * 4)
        assert objects['hausdorff'] == 0 and objects['fp'] == objects['fn'] == 0


def two_objects() -> dict:
    ids = np.zeros((20, 20), int)
    ids[1:6, 1:6], ids[10:18, 8:18] = 1, 2
    return dict(images=[dict(id=0, file_name='a.png', height=20, width=20)],
                categories=[dict(id=0, name='gland')], annotations=[
        dict(a, category_id=0, id=i) for i, a in enumerate(annotations_of(ids, 0))])


def test_annotation_id_0_is_an_object_like_others():
    """As CVAT numbers them; pycocotools alone gives 0.5 here, for it takes 0 for 'unmatched'."""
    truth = two_objects()
    assert coco_ap(truth, perfect(truth), 'segm')['AP'] == pytest.approx(1)


def test_a_crowd_is_neither_an_object_nor_a_mistake_to_find():
    truth = two_objects()
    region = np.zeros((20, 20), np.uint8)
    region[:, :7] = 1  # over the first object and around it
    truth['annotations'].append(dict(truth['annotations'][0], id=9, iscrowd=1, area=140.0,
                                     bbox=[0, 0, 7, 20], segmentation=encode(region)))
    inside = np.zeros((20, 20), np.uint8)
    inside[12:16, 1:5] = 1
    results = perfect(truth) + [dict(image_id=0, category_id=0, bbox=[1, 12, 4, 4], score=0.8,
                                     segmentation=encode(inside))]
    assert truth_map(truth, truth['images'][0]).max() == 2
    objects = evaluate_instances(truth, results)['scores']['all']['objects']
    assert (objects['tp'], objects['fp'], objects['fn']) == (2, 0, 0) and objects['dice'] == 1
    del truth['annotations'][-1]
    assert evaluate_instances(truth, results)['scores']['all']['objects']['fp'] == 1


def test_a_small_object_upon_a_large_one_is_not_lost():
    truth = two_objects()
    small = np.zeros((20, 20), np.uint8)
    small[12:14, 10:13] = 1
    truth['annotations'].append(dict(truth['annotations'][0], id=9, area=6.0, bbox=[10, 12, 3, 2],
                                     segmentation=encode(small)))
    found = truth_map(truth, truth['images'][0])
    assert np.unique(found).tolist() == [0, 1, 2, 3] and (found[small > 0] == found[12, 10]).all()


def test_results_of_unknown_images_and_categories_are_refused():
    truth = two_objects()
    for key in ('image_id', 'category_id'):
        results = [dict(r, **{key: 5}) for r in perfect(truth)]
        with pytest.raises(UserError, match=rf'results of {key} \[5\]'):
            evaluate_instances(truth, results)
