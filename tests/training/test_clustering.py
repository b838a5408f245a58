"""Clusters of a whole data set: whitening, k-means, and how two clusterings compare."""

from pathlib import Path

import numpy as np
import pytest
import torch

from openselfsup.errors import UserError
from openselfsup.training.clustering import compare, kmeans, whiten

GOLDEN = Path(__file__).parents[1] / 'data/golden/deepcluster_step.npz'


@pytest.fixture(scope='module')
def golden():
    return {key: torch.from_numpy(value) for key, value in np.load(GOLDEN).items()
            if key.startswith('cluster/')}


def test_whitened_components_are_the_published_ones_but_for_their_signs(golden):
    found = whiten(golden['cluster/features'], int(golden['cluster/pca_dim']))
    torch.testing.assert_close(found @ found.T, golden['cluster/whitened_gram'], rtol=0, atol=1e-5)
    with pytest.raises(UserError, match='features of 12 numbers have no 13 components'):
        whiten(golden['cluster/features'], 13)


def test_directions_without_variance_stay_at_zero():
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    found = whiten(torch.cat([rows, torch.full((50, 2), 7.)], 1), 5)
    assert found.isfinite().all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(found[:, 3:], torch.zeros(50, 2), rtol=0, atol=1e-4)
    assert whiten(torch.full((4, 2), 7.), 2).equal(torch.zeros(4, 2))


def test_clusters_are_a_fixed_point_as_good_as_the_published_ones(golden):
    rows = golden['cluster/whitened_normalised']
    found = min((kmeans(rows, 5, seed) for seed in range(5)), key=lambda f: f.objective)
    centroids = torch.stack([rows[found.labels == number].mean(0) for number in range(5)])
    assert torch.cdist(rows, centroids).argmin(1).equal(found.labels)
    assert found.objective * len(rows) < 1.02 * golden['cluster/kmeans_objective']
    again = kmeans(rows, 5, 3)
    assert again.labels.equal(kmeans(rows, 5, 3).labels)
    with pytest.raises(UserError, match='120 tiles cannot form 121 clusters'):
        kmeans(rows, 121, 0)


def test_clusterings_are_compared_whatever_their_numbers():
    before = torch.tensor([0, 0, 0, 1, 1, 2])
    assert compare(before, (before + 1) % 3) == (0, pytest.approx(1))
    after = torch.tensor([4, 4, 0, 1, 1, 1])  # one of three left; a cluster joined another
    assert compare(before, after).reassigned == pytest.approx(1 / 6)
