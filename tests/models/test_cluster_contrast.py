from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openselfsup.errors import UserError
from openselfsup.models.heads.cluster import ClusterHead
from openselfsup.models.health import label_agreement
from openselfsup.models.losses import (
    cluster_contrast,
    joint_assignment,
    negative_mutual_information,
)
from openselfsup.models.necks.group import GroupNeck

GOLDEN = Path(__file__).parents[1] / 'data/golden'
CASES = [('ca2cl_parts', dict(clusters=5, iters=10)),
         ('ca2cl_kmeans_two_iterations_empty_clusters', dict(clusters=12, iters=2))]


def groups_of(golden):
    return [torch.from_numpy(golden[f'group{view}']).requires_grad_() for view in (1, 2)]


def assert_close(ours, golden):
    np.testing.assert_allclose(ours.detach(), golden, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name, settings', CASES)
def test_golden_loss_and_gradients(name, settings):
    golden = np.load(GOLDEN / f'{name}.npz')
    groups = groups_of(golden)
    outputs = ClusterHead(**settings, weight=1.0)(*groups)
    assert_close(outputs['loss_cluster'], golden['loss_cluster'])
    for view, gradient in enumerate(torch.autograd.grad(outputs['loss_cluster'], groups), 1):
        assert_close(gradient, golden[f'grad_group{view}'])


def test_golden_mutual_information():
    golden = np.load(GOLDEN / 'ca2cl_parts.npz')
    outputs = ClusterHead(5, weight=1.0, mutual_information=True)(*groups_of(golden))
    assert_close(outputs['loss_cluster'] + outputs['loss_mutual_information'],
                 golden['loss_cluster_with_mutual_information'])
    golden = np.load(GOLDEN / 'ca2cl_kmeans_two_iterations_empty_clusters.npz')
    p, q = (torch.from_numpy(golden[f'mi_softmax{view}']).requires_grad_() for view in (1, 2))
    loss = negative_mutual_information(p.T @ q)
    assert_close(loss, golden['loss_mutual_information'])
    for view, gradient in enumerate(torch.autograd.grad(loss, (p, q)), 1):
        assert_close(gradient, golden[f'grad_mi_softmax{view}'])


def test_weight_scales_the_losses():
    golden = np.load(GOLDEN / 'ca2cl_parts.npz')
    one, tenth = (ClusterHead(5, weight=weight, mutual_information=True)(*groups_of(golden))
                  for weight in (1.0, 0.1))
    for key in ('loss_cluster', 'loss_mutual_information'):
        torch.testing.assert_close(tenth[key], 0.1 * one[key])


def test_an_empty_cluster_leaves_the_softmax_only_if_masked():
    golden = np.load(GOLDEN / f'{CASES[1][0]}.npz')
    losses = {empty: ClusterHead(12, 2, weight=1.0, empty=empty)(*groups_of(golden))
              for empty in ('zero', 'mask', 'resplit')}
    assert losses['mask']['loss_cluster'] < losses['zero']['loss_cluster']  # fewer terms
    assert losses['zero']['clusters_empty'] > 0 == losses['resplit']['clusters_empty']
    groups = groups_of(golden)
    head = ClusterHead(12, 2, empty='mask')
    found = [head.find_clusters(group) for group in groups]
    present = [clusters.sizes > 0 for clusters in found]
    # The masked loss is the loss over the clusters that there are.
    renumbered = [mask.long().cumsum(0)[clusters.labels] - 1
                  for mask, clusters in zip(present, found)]
    expected = (F.cross_entropy(groups[0] @ found[1].centroids[present[1]].T / 0.2, renumbered[1])
                + F.cross_entropy(groups[1] @ found[0].centroids[present[0]].T / 0.2,
                                  renumbered[0])) / 2
    torch.testing.assert_close(losses['mask']['loss_cluster'], expected)


def test_detached_centroids_leave_the_gradient_of_the_anchors():
    golden = np.load(GOLDEN / 'ca2cl_parts.npz')
    groups = groups_of(golden)
    gradients = []
    for detach in (False, True):
        loss = ClusterHead(5, detach_centroids=detach)(*groups)['loss_cluster']
        gradients.append(torch.autograd.grad(loss, groups)[0])
    assert not torch.allclose(*gradients)
    found = [ClusterHead(5).find_clusters(group.detach()) for group in groups]
    loss = cluster_contrast(*groups, *(c.centroids for c in found), *(c.labels for c in found), 0.2)
    torch.testing.assert_close(gradients[1], 0.1 * torch.autograd.grad(loss, groups)[0])


def test_mutual_information_of_masked_clusters_is_finite():
    groups = groups_of(np.load(GOLDEN / f'{CASES[1][0]}.npz'))
    head = ClusterHead(12, 2, empty='mask', mutual_information=True)
    loss = head(*groups)['loss_mutual_information']
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, groups))


def test_mutual_information_is_bounded_by_log_k():
    assert negative_mutual_information(torch.eye(4)) == pytest.approx(-np.log(4))
    assert negative_mutual_information(torch.ones(4, 4)) == pytest.approx(0, abs=1e-6)


def test_joint_assignment_sums_to_the_batch():
    groups = [F.normalize(torch.randn(9, 4), dim=1) for _ in range(2)]
    assert joint_assignment(*groups, groups[0][:3], groups[1][:3]).sum() == pytest.approx(9)


def test_float32_under_autocast():
    groups = [F.normalize(torch.randn(40, 16), dim=1) for _ in range(2)]
    exact = ClusterHead(4)(*groups)['loss_cluster']
    with torch.autocast('cpu', torch.bfloat16):
        assert ClusterHead(4)(*groups)['loss_cluster'].equal(exact)


def test_monitors_count_what_is_there():
    groups = [F.normalize(torch.eye(4)[[0, 0, 0, 1, 1, 2]] + 1e-3, dim=1)] * 2
    outputs = ClusterHead(3, init='kmeans++')(*groups)
    assert outputs['cluster_largest'] == 0.5 and outputs['clusters_empty'] == 0
    assert outputs['cluster_smallest'] == pytest.approx(1 / 6)
    assert outputs['label_agreement'] == pytest.approx(1)


def test_label_agreement_does_not_depend_on_the_numbering():
    first = torch.tensor([0, 0, 1, 1, 2, 2])
    assert label_agreement(first, (first + 1) % 3, 3) == pytest.approx(1)
    assert label_agreement(first, torch.tensor([0, 1] * 3), 3) == pytest.approx(0, abs=1e-6)
    assert label_agreement(first * 0, first * 0, 3) == 0


def test_label_agreement_is_exact_under_autocast():
    labels = torch.randint(3, (2, 3000), generator=torch.Generator().manual_seed(0))
    labels[1, :1500] = labels[0, :1500]
    expected = label_agreement(*labels, 3)
    with torch.autocast('cpu', torch.bfloat16):
        assert label_agreement(*labels, 3) == expected


def test_fewer_tiles_than_clusters():
    group = F.normalize(torch.randn(6, 4), dim=1)
    with pytest.raises(UserError, match='a batch of 6 tiles cannot form 10 clusters.*drop_last'):
        ClusterHead(10)(group, group)


@pytest.mark.parametrize('settings, words', [
    (dict(empty='masked'), "did you mean 'mask'"), (dict(init='random'), 'first, kmeans'),
    (dict(clusters=1), 'at least 2 clusters')])
def test_impossible_settings(settings, words):
    with pytest.raises(UserError, match=words):
        ClusterHead(**settings)


def test_group_neck_is_the_published_normed_linear():
    golden = np.load(GOLDEN / 'ca2cl_step.npz')
    neck = GroupNeck(24, 16)
    neck.load_state_dict({'weight': torch.from_numpy(golden['state/groupDis.0.weight'])})
    h = torch.randn(5, 24, 3, 3)
    cosine = torch.stack([F.cosine_similarity(h.mean((2, 3)), column[None])
                          for column in neck.weight.T], 1)
    torch.testing.assert_close(neck([h]), F.normalize(cosine, dim=1))
    with torch.autocast('cpu', torch.bfloat16):
        assert neck([h]).dtype == torch.float32


def test_no_tiles_are_a_loss_of_zero_with_gradient_zero():
    group, centroids = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    none, labels, absent = group[:0], torch.zeros(0, dtype=torch.long), torch.zeros(5).bool()
    for present in ((None, None), (absent, absent)):
        losses = (cluster_contrast(none, none, centroids, centroids, labels, labels, 0.2, *present),
                  negative_mutual_information(
                      joint_assignment(none, none, centroids, centroids, *present)))
        for loss in losses:
            assert loss == 0
            for gradient in torch.autograd.grad(loss, (group, centroids), retain_graph=True):
                assert not gradient.any() and gradient.isfinite().all()
