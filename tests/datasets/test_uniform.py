"""Epochs that show all classes alike: the published draw, and the loader's."""

from pathlib import Path

import numpy as np
import pytest

from openselfsup.datasets import TileDataset, ViewLoader
from openselfsup.datasets.uniform import uniform_indices

DATA = Path(__file__).parents[2] / 'data/demo/kather2016'
GOLDEN = Path(__file__).parents[1] / 'data/golden/deepcluster_step.npz'


def test_the_draw_is_the_published_one():
    golden = np.load(GOLDEN)
    found = uniform_indices(golden['cluster/kmeans_labels'],
                            np.random.RandomState(int(golden['sampler/epoch'])))
    np.testing.assert_array_equal(found, golden['sampler/uniform_indices'])


@pytest.fixture(scope='module')
def dataset():
    return TileDataset(dict(type='ImageFolder', root=str(DATA), labels=False),
                       dict(type='ViewRecipe', size=16, steps=[dict(type='RandomResizedCrop')]), 1)


def test_epochs_follow_the_classes_whatever_workers_and_ranks(dataset):
    classes = np.zeros(len(dataset), np.int64)
    classes[:4] = 1  # class 1 has four tiles, and half of each epoch
    whole, other, halves = (
        [ViewLoader(dataset, size, seed=5, workers=workers, rank=rank, world_size=world)
         for rank in range(world)] for size, workers, world in ((8, 0, 1), (8, 2, 1), (4, 0, 2)))
    plain = [batch['index'] for batch in other[0]]  # its processes start before they hear
    for loader in (*whole, *other, *halves):
        loader.see_alike(classes)
    for epoch in (0, 1):
        for loader in (*whole, *other, *halves):
            loader.set_position(epoch)
        batches = list(whole[0])
        for mine, theirs, first, second in zip(batches, other[0], *halves, strict=True):
            assert mine['index'].equal(theirs['index'])
            assert mine['views'][0].equal(theirs['views'][0])
            assert mine['index'].tolist() == first['index'].tolist() + second['index'].tolist()
        share = np.mean([classes[batch['index']].mean() for batch in batches])
        assert 0.4 < share < 0.6
    whole[0].see_alike(None)
    whole[0].set_position(0)
    assert all(a['index'].equal(b) for a, b in zip(whole[0], plain, strict=True))
