"""Average precision of resampled images against pycocotools' of the images that were drawn."""

import numpy as np
import pytest

from openselfsup.datasets.prepare.instances import encode
from openselfsup.transfer.instance.metrics import coco_ap
from openselfsup.transfer.instance.resampled import matches, resampled_ap

SIDE, IMAGES = 40, 6


def mask(corner, side):
    found = np.zeros((SIDE, SIDE), bool)
    y, x = np.maximum(corner, 0)
    found[y:y + side, x:x + side] = True
    return encode(found)


@pytest.fixture(scope='module')
def found():
    """Objects of two categories, one of them in a crowd, and detections that miss a little."""
    rng, annotations, results = np.random.default_rng(0), [], []
    for image, category in np.ndindex(IMAGES, 2):
        levels = rng.permutation(8) / 10  # images have equal scores, an image has not
        for corner, score in zip(((0, 0), (0, 20), (20, 0), (20, 20)), levels):
            own = dict(image_id=image, category_id=category)
            if rng.random() < 0.6 and not (image == 5 and category == 1):
                annotations.append(dict(own, segmentation=mask(corner, 16), area=256,
                                        iscrowd=int(rng.random() < 0.15)))
            if rng.random() < 0.7:
                results.append(dict(own, score=float(score), segmentation=mask(
                    corner + rng.integers(0, 4, 2), 15)))
    truth = dict(images=[dict(id=i, height=SIDE, width=SIDE) for i in range(IMAGES)],
                 categories=[dict(id=0), dict(id=1)], annotations=annotations)
    return truth, results


def drawn(truth, results, weights):
    """Return data in which every image stands as often as it was drawn."""
    copies = [image for image, count in enumerate(weights) for _ in range(count)]
    return dict(truth, images=[dict(truth['images'][image], id=i)
                               for i, image in enumerate(copies)],
                annotations=[dict(one, image_id=i) for i, image in enumerate(copies)
                             for one in truth['annotations'] if one['image_id'] == image]
                ), [dict(one, image_id=i) for i, image in enumerate(copies)
                    for one in results if one['image_id'] == image]


def test_it_is_the_average_precision_of_the_images_that_were_drawn(found):
    weights = np.random.default_rng(1).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), 20)
    weights = np.concatenate([np.ones((1, IMAGES), int), weights, [[0, 0, 0, 0, 0, 6]]])
    values = resampled_ap(matches(*found), weights)
    expected = [coco_ap(*drawn(*found, row), 'segm')['AP'] for row in weights]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)
    assert len(set(values)) > 15


def test_without_detections_or_objects(found):
    truth, results = found
    assert resampled_ap(matches(truth, []), np.ones((1, IMAGES))) == [0]
    empty = dict(truth, annotations=[])
    assert np.isnan(resampled_ap(matches(empty, results), np.ones((2, IMAGES)))).all()
