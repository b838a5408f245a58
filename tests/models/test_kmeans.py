from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.models.memories.kmeans import assign, batch_kmeans, fill_empty, one_hot, plus_plus

GOLDEN = Path(__file__).parents[1] / 'data/golden'
CASES = [('ca2cl_parts', 5, 10, 1), ('ca2cl_kmeans_two_iterations_empty_clusters', 12, 2, 1),
         ('ca2cl_kmeans_two_iterations_empty_clusters', 12, 2, 2)]


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed),
                                   dtype=torch.float64), dim=-1)


def oracle(points, clusters, iters):
    """The same by distances and loops."""
    centroids = points[:clusters].clone()
    for _ in range(iters):
        labels = ((points[:, None] - centroids) ** 2).sum(-1).argmin(1)
        centroids = torch.stack([points[labels == k].sum(0) / max((labels == k).sum().item(), 1)
                                 for k in range(clusters)])
    return labels, centroids


@pytest.mark.parametrize('name, clusters, iters, view', CASES)
def test_golden(name, clusters, iters, view):
    golden = np.load(GOLDEN / f'{name}.npz')
    found = batch_kmeans(torch.from_numpy(golden[f'group{view}']), clusters, iters)
    assert found.labels.equal(torch.from_numpy(golden[f'kmeans_labels{view}']))
    np.testing.assert_allclose(found.centroids, golden[f'kmeans_centroids{view}'], rtol=1e-5,
                               atol=1e-6)
    assert found.sizes.sum() == len(found.labels)
    if 'cluster_sizes1' in golden and view == 1:
        np.testing.assert_array_equal(found.sizes, golden['cluster_sizes1'])


@settings(max_examples=30)
@given(st.integers(2, 8), st.integers(0, 30), st.integers(1, 6), st.integers(0, 99))
def test_equals_distances_and_loops(clusters, more, iters, seed):
    points = unit(clusters + more, 5, seed=seed)
    found = batch_kmeans(points, clusters, iters)
    labels, centroids = oracle(points, clusters, iters)
    assert found.labels.equal(labels)
    torch.testing.assert_close(found.centroids, centroids)


def test_gradient_flows_through_the_means_of_the_last_labels():
    points = unit(20, 4).requires_grad_()
    found = batch_kmeans(points, 3, 5)
    direction = torch.randn_like(found.centroids)
    (found.centroids * direction).sum().backward()
    expected = (direction / found.sizes[:, None])[found.labels]
    torch.testing.assert_close(points.grad, expected)


def test_resplit_leaves_no_cluster_empty():
    golden = np.load(GOLDEN / 'ca2cl_kmeans_two_iterations_empty_clusters.npz')
    points = torch.from_numpy(golden['group1'])
    assert (batch_kmeans(points, 12, 2).sizes == 0).sum() == 2
    found = batch_kmeans(points, 12, 2, resplit=True)
    assert (found.sizes > 0).all() and found.sizes.sum() == len(points)
    for k in range(12):  # labels and centroids still belong together
        torch.testing.assert_close(found.centroids[k], points[found.labels == k].mean(0))


def test_the_farthest_rows_fill_empty_clusters_unless_alone():
    labels = torch.tensor([0, 0, 0, 3, 0])
    distances = torch.tensor([0.1, 0.9, 0.5, 5.0, 0.2])
    filled = fill_empty(labels, distances, one_hot(labels, torch.arange(4), torch.float32))
    assert filled.tolist() == [0, 1, 2, 3, 0]


def test_identical_rows_stay_where_they_are():
    found = batch_kmeans(torch.ones(6, 2) / 2 ** 0.5, 3, 2, resplit=True)
    assert torch.isfinite(found.centroids).all() and found.sizes.sum() == 6


def test_plus_plus_draws_different_far_rows():
    centers = torch.eye(4, dtype=torch.float64).repeat_interleave(25, 0)
    points = F.normalize(centers + 0.01 * unit(100, 4), dim=1)
    hits = 0
    for seed in range(20):
        torch.manual_seed(seed)
        chosen = plus_plus(points, 4)
        hits += assign(chosen, torch.eye(4, dtype=torch.float64))[0].unique().numel() == 4
    assert hits == 20  # rows drawn at random would find all four centers in 9 % of the cases


def test_plus_plus_init_clusters_as_it_should():
    points = F.normalize(torch.eye(4).repeat_interleave(25, 0) + 0.02 * unit(100, 4).float(), dim=1)
    assert batch_kmeans(points, 4, 3, 'kmeans++').sizes.tolist() == [25, 25, 25, 25]


@pytest.mark.parametrize('arguments, words', [
    ((9, 3), '8 rows cannot form 9 clusters'), ((2, 0), 'at least one iteration'),
    ((2, 1, 'last'), 'init must be')])
def test_impossible_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        batch_kmeans(unit(8, 3), *arguments)
