"""DeepCluster: the published steps, and what a new clustering changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_zoo import ZooBackbone, assert_golden
from methods import build, with_options

from openselfsup.errors import UserError
from openselfsup.models.algorithms.deepcluster import DeepCluster
from openselfsup.models.backbones.sobel import SobelBackbone
from openselfsup.models.pseudo_labels import class_weights, sizes_of, weighted_cross_entropy

GOLDEN = Path(__file__).parents[1] / 'data/golden/deepcluster_step.npz'


@pytest.fixture(scope='module')
def golden():
    return {key: torch.from_numpy(value) for key, value in np.load(GOLDEN).items()}


def ours(name):
    return f'backbone.{name}' if name.startswith(('backbone', 'sobel')) else name


def test_losses_gradients_and_final_state_are_the_published_ones(golden):
    method = DeepCluster(SobelBackbone(ZooBackbone(2)),
                         dict(type='ClsHead', in_channels=12, num_classes=5), length=120,
                         reweight=True)
    method.assign(golden['cluster/kmeans_labels'], torch.Generator())
    assert_golden(method.loss_weight, golden['cluster/loss_weight_pow0.5'], 'weights')
    loaded = method.load_state_dict({ours(key[6:]): value for key, value in golden.items()
                                     if key[:6] == 'state/'}, strict=False)
    assert not loaded.unexpected_keys and set(loaded.missing_keys) == {'labels', 'loss_weight'}
    optimizer = torch.optim.SGD([
        dict(params=[p for p in method.backbone.parameters() if p.requires_grad], momentum=0.9),
        dict(params=method.head.parameters(), momentum=0.)], lr=0.1, weight_decay=1e-4)
    for step in range(2):
        labels = golden[f'step{step}/pseudo_label']
        method.labels[:len(labels)] = labels
        optimizer.zero_grad()
        outputs = method([golden[f'step{step}/img']], index=torch.arange(len(labels)))
        outputs['loss_cls'].backward()
        assert_golden(outputs['loss_cls'], golden[f'step{step}/loss'], f'step {step} loss')
        for key, parameter in method.named_parameters():
            if parameter.requires_grad:
                name = key.removeprefix('backbone.') if key.startswith('backbone.b') else key
                assert_golden(parameter.grad, golden[f'step{step}/grad/{name}'], key, rtol=2e-5)
        optimizer.step()
    state = method.state_dict()
    for key, value in golden.items():
        if key.startswith('final/'):
            name = 'loss_weight' if 'criterion' in key else ours(key[6:])
            assert_golden(state[name], value, key, atol=1e-5)


def test_new_clusters_start_a_new_classifier_the_same_from_the_same_generator():
    heads = []
    for method in (build(with_options('DeepCluster')) for _ in range(2)):
        before = method.head.fc_cls.weight.clone()
        method.assign(torch.arange(20) % 2, torch.Generator().manual_seed(3))
        assert not method.head.fc_cls.weight.equal(before)
        assert not method.head.fc_cls.bias.any() and sizes_of(method.labels, 3).tolist() == [
            10, 10, 0]
        heads.append(method.head.fc_cls.weight)
    assert heads[0].equal(heads[1]) and 0.005 < heads[0].std() < 0.015


def test_an_empty_class_weighs_nothing():
    weights = class_weights(torch.tensor([4, 0, 16]), 0.5)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 0, 1 / 3]))
    scores, labels = torch.randn(6, 3), torch.tensor([0, 2, 2, 0, 2, 0])
    torch.testing.assert_close(weighted_cross_entropy(scores, labels, weights),
                               F.cross_entropy(scores, labels, weights))


def test_sizes_that_cannot_work_are_refused():
    head = dict(type='ClsHead', in_channels=24, num_classes=21)
    with pytest.raises(UserError, match='20 tiles cannot form 21 clusters; expected at most 20'):
        build(with_options('DeepCluster', head=head))
    with pytest.raises(UserError, match='labels are kept of 30 tiles, the data set has 20'):
        build(with_options('DeepCluster', length=30))
