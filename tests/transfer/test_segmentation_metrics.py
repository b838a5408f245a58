"""Object scores against hand-computed cases and independent implementations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import directed_hausdorff
from sklearn.metrics import f1_score, jaccard_score

from openselfsup.datasets.prepare.instances import annotations_of, encode
from openselfsup.transfer.instance.metrics import coco_ap, evaluate_instances
from openselfsup.transfer.instance.object_metrics import (
    aji,
    glas_counts,
    object_dice,
    object_hausdorff,
    overlaps,
    panoptic,
)
from openselfsup.transfer.semantic.metrics import Confusion

EMPTY = np.zeros((20, 20), int)


def boxes(*corners: tuple[int, int, int, int]) -> np.ndarray:
    """Map with a box (y0, x0, y1, x1) per id."""
    ids = np.zeros((20, 20), int)
    for i, (y0, x0, y1, x1) in enumerate(corners, 1):
        ids[y0:y1, x0:x1] = i
    return ids


def scores(truth: np.ndarray, found: np.ndarray) -> dict:
    areas = overlaps(truth, found)
    return dict(counts=tuple(glas_counts(areas)), f1=glas_counts(areas).f1,
                dice=object_dice(areas), hausdorff=object_hausdorff(truth, found),
                aji=aji(areas), pq=panoptic(areas).pq)


def test_perfect_prediction_whatever_the_ids():
    truth = boxes((0, 0, 6, 6), (8, 8, 18, 18))
    found = truth.copy()
    found[truth == 1], found[truth == 2] = 9, 4
    assert scores(truth, found) == dict(counts=(2, 0, 0), f1=1, dice=1, hausdorff=0, aji=1, pq=1)


def test_nothing_to_find_and_nothing_found():
    assert scores(EMPTY, EMPTY) == dict(counts=(0, 0, 0), f1=1, dice=1, hausdorff=0, aji=1, pq=1)


@pytest.mark.parametrize('swap', [False, True])
def test_one_map_without_objects(swap):
    maps = (EMPTY, boxes((2, 2, 8, 8)))
    found = scores(*(maps[::-1] if swap else maps))
    assert found == dict(counts=(0, 0, 1) if swap else (0, 1, 0), f1=0, dice=0,
                         hausdorff=pytest.approx(19 * 2 ** 0.5), aji=0, pq=0)


def test_one_object_found_as_two_unequal_pieces():
    # 10 x 10 object found as 10 x 7 and 10 x 3.
    found = scores(boxes((0, 0, 10, 10)), boxes((0, 0, 10, 7), (0, 7, 10, 10)))
    assert found['counts'] == (1, 1, 0)
    # truth side: 2*70/170; found side: .7 * 2*70/170 + .3 * 2*30/130
    expected = 0.5 * (140 / 170 + 0.7 * 140 / 170 + 0.3 * 60 / 130)
    assert found['dice'] == pytest.approx(expected)
    # Hausdorff: column 9 to column 6 is 3; column 0 to column 7 is 7.
    assert found['hausdorff'] == pytest.approx(0.5 * (3 + 0.7 * 3 + 0.3 * 7))
    assert found['aji'] == pytest.approx(70 / (100 + 30))
    assert found['pq'] == pytest.approx(0.7 / 1.5)


def test_two_exact_halves_are_one_hit_and_one_false_object():
    found = scores(boxes((0, 0, 10, 10)), boxes((0, 0, 10, 5), (0, 5, 10, 10)))
    assert found['counts'] == (1, 1, 0) and found['pq'] == 0


def test_two_objects_merged_into_one():
    found = scores(boxes((0, 0, 10, 5), (0, 6, 10, 10)), boxes((0, 0, 10, 10)))
    assert found['counts'] == (1, 0, 1)  # it covers all of the larger one
    # AJI: both take it: (50 + 40) / (100 + 100); its pixels count in both unions
    assert found['aji'] == pytest.approx(90 / 200)
    assert found['pq'] == 0  # IoU with the larger is exactly 1/2


def test_a_found_object_that_overlaps_nothing_takes_the_nearest():
    truth = boxes((0, 0, 4, 4), (10, 10, 14, 14))
    found = boxes((0, 0, 4, 4), (16, 10, 20, 14))
    # Object 2 of either side: nearest are each other, 6 rows apart; each side: half weight.
    assert object_hausdorff(truth, found) == pytest.approx(0.5 * (0.5 * 6 + 0.5 * 6))


@settings(max_examples=25)
@given(st.integers(0, 2 ** 32 - 1))
def test_against_plain_loops_over_pixel_sets(seed):
    rng = np.random.default_rng(seed)
    truth, found = (np.kron(rng.integers(0, 4, (4, 4)), np.ones((3, 3), int)) for _ in 'ab')
    found = np.roll(found, rng.integers(0, 3), 0)
    own = {g: {tuple(p) for p in np.argwhere(truth == g)} for g in np.unique(truth[truth > 0])}
    other = {s: {tuple(p) for p in np.argwhere(found == s)} for s in np.unique(found[found > 0])}
    if not own or not other:
        return

    def hausdorff(a, b):
        a, b = np.array(sorted(a)), np.array(sorted(b))
        return max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])

    dice = distance = 0.0
    for mine, theirs in ((own, other), (other, own)):
        total = sum(map(len, mine.values()))
        for a in mine.values():
            shared = [len(a & b) for b in theirs.values()]
            best = list(theirs.values())[int(np.argmax(shared))]
            dice += 0.5 * len(a) / total * 2 * max(shared) / (len(a) + len(best))
            partners = [best] if max(shared) else list(theirs.values())
            distance += 0.5 * len(a) / total * min(hausdorff(a, b) for b in partners)
    areas = overlaps(truth, found)
    assert object_dice(areas) == pytest.approx(dice)
    assert object_hausdorff(truth, found) == pytest.approx(distance, abs=1e-4)
    # AJI and PQ, by the letter of the papers
    c = u = 0
    used, matches = set(), []
    for a in own.values():
        j = {s: len(a & b) / len(a | b) for s, b in other.items()}
        s = max(j, key=lambda k: (j[k], -k))
        if j[s]:
            c, u = c + len(a & other[s]), u + len(a | other[s])
            used.add(s)
        else:
            u += len(a)
        matches += [v for v in j.values() if v > 0.5]
    u += sum(len(b) for s, b in other.items() if s not in used)
    assert aji(areas) == pytest.approx(c / u)
    half = 0.5 * (len(own) + len(other) - 2 * len(matches))
    assert panoptic(areas).pq == pytest.approx(sum(matches) / (len(matches) + half))


def coco(*maps: np.ndarray) -> dict:
    return dict(info={}, categories=[dict(id=1, name='gland')],
                images=[dict(id=i, file_name=f'{i}.png', height=20, width=20)
                        for i, _ in enumerate(maps, 1)],
                annotations=[a for i, m in enumerate(maps, 1) for a in annotations_of(m, i)])


def results(*maps: np.ndarray, score=0.9) -> list[dict]:
    return [dict(image_id=i, category_id=1, score=score, segmentation=encode(m == k),
                 bbox=annotations_of((m == k).astype(int), 1)[0]['bbox'])
            for i, m in enumerate(maps, 1) for k in range(1, m.max() + 1)]


def test_average_precision_by_hand():
    truth = boxes((0, 0, 10, 10), (12, 12, 18, 18))
    # The large one found with IoU 0.8 (counts at .5 ... .8: 7 of 10 thresholds), the other not.
    found = boxes((0, 0, 10, 8))
    for kind in ('bbox', 'segm'):
        ap = coco_ap(coco(truth), results(found), kind)
        # precision 1 up to recall 1/2: 51 of 101 recall points
        assert ap['AP50'] == ap['AP75'] == pytest.approx(51 / 101)
        assert ap['AP'] == pytest.approx(0.7 * 51 / 101)


def test_average_precision_equals_what_pycocotools_summarises():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    rng = np.random.default_rng(0)
    maps = [np.kron(rng.integers(0, 4, (4, 4)), np.ones((5, 5), int)) for _ in range(3)]
    truth = coco(*maps)
    found = [dict(r, score=float(rng.random())) for r in results(*(np.roll(m, 1) for m in maps))]
    dataset = COCO()
    dataset.dataset = truth
    dataset.createIndex()
    run = COCOeval(dataset, dataset.loadRes([{k: v for k, v in r.items() if k != 'bbox'}
                                             for r in found]), 'segm')
    run.evaluate(), run.accumulate(), run.summarize()
    ap = coco_ap(truth, found, 'segm')
    assert [ap[k] for k in ('AP', 'AP50', 'AP75', 'APs')] == pytest.approx(run.stats[:4].tolist())


def test_average_precision_without_predictions_or_truth():
    truth = boxes((0, 0, 10, 10))
    assert coco_ap(coco(truth), [], 'segm')['AP'] == 0
    assert coco_ap(coco(EMPTY), results(truth), 'segm')['AP'] is None
    found = evaluate_instances(coco(EMPTY), [])
    assert found['scores']['all']['bbox']['AP'] is None
    assert found['scores']['all']['objects']['f1'] == 1


def test_counts_are_pooled_and_dice_is_averaged_over_images_and_subsets():
    a, b = boxes((0, 0, 10, 10)), boxes((0, 0, 5, 5), (10, 10, 15, 15), (0, 10, 5, 15))
    found = evaluate_instances(coco(a, b), results(a, EMPTY), {'A': [1], 'B': [2]})
    pooled = found['scores']['all']['objects']
    assert (pooled['tp'], pooled['fp'], pooled['fn']) == (1, 0, 3)
    assert pooled['f1'] == pytest.approx(2 / 5) and pooled['dice'] == 0.5
    assert found['scores']['A']['objects']['f1'] == 1
    assert found['scores']['B']['segm']['AP'] == 0
    assert found['images']['2.png']['dice'] == 0


def test_the_threshold_is_for_objects_only_and_higher_scores_lie_on_top():
    truth = boxes((0, 0, 10, 10))
    weak = results(truth, score=0.4)
    found = evaluate_instances(coco(truth), weak)
    assert found['scores']['all']['segm']['AP'] == pytest.approx(1)
    assert found['scores']['all']['objects']['f1'] == 0
    whole = results(boxes((0, 0, 20, 20)), score=0.6)
    found = evaluate_instances(coco(truth), whole + results(truth, score=0.9))
    assert found['scores']['all']['objects']['tp'] == 1


@settings(max_examples=20)
@given(st.integers(0, 2 ** 32 - 1))
def test_semantic_scores_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    confusion = Confusion(['a', 'b', 'c', 'd'])
    pairs = [(rng.choice([0, 1, 2, 255], (6, 5)), rng.integers(0, 3, (6, 5))) for _ in range(3)]
    for truth, found in pairs:
        confusion.add(truth, found)
    truth, found = (np.concatenate([p[i].ravel() for p in pairs]) for i in (0, 1))
    counted = truth != 255
    got = confusion.scores()
    f1 = f1_score(truth[counted], found[counted], labels=[0, 1, 2], average=None)
    iou = jaccard_score(truth[counted], found[counted], labels=[0, 1, 2], average=None)
    for i, name in enumerate('abc'):
        assert got['classes'][name]['dice'] == pytest.approx(f1[i])
        assert got['classes'][name]['iou'] == pytest.approx(iou[i])
    assert got['classes']['d']['iou'] is None
    assert got['mean_iou'] == pytest.approx(iou.mean())


def test_pooling_pixels_is_not_averaging_images():
    confusion = Confusion(['a', 'b'])
    confusion.add(np.zeros(1, int), np.ones(1, int))
    confusion.add(np.zeros(99, int), np.zeros(99, int))
    assert confusion.scores()['classes']['a']['iou'] == pytest.approx(0.99)


def test_values_that_are_no_class_are_refused():
    for truth, found in itertools.product((np.array([7]), np.array([0])), (np.array([5]),)):
        with pytest.raises(ValueError, match='outside'):
            Confusion(['a', 'b']).add(truth, found)
