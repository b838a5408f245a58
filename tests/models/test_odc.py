"""ODC: the published steps with their splits, and what the memory does at its edges."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_zoo import ZooBackbone, assert_golden
from methods import METHODS, build, with_options

from openselfsup.errors import UserError
from openselfsup.models.algorithms.odc import ODC
from openselfsup.models.memories import ODCMemory
from openselfsup.models.memories.odc import split_in_two
from openselfsup.models.method import Progress

GOLDEN = Path(__file__).parents[1] / 'data/golden/odc_steps.npz'


@pytest.fixture(scope='module')
def golden():
    return {key: torch.from_numpy(value) for key, value in np.load(GOLDEN).items()}


def test_losses_gradients_clusters_and_final_state_are_the_published_ones(golden):
    method = ODC(ZooBackbone(), dict(type='NonLinearNeckV0', in_channels=12, hid_channels=16,
                                     out_channels=10, dropout=0.),
                 dict(type='ClsHead', in_channels=10, num_classes=6), length=40,
                 memory_momentum=0.3, min_cluster=4, centroids_update_interval=2)
    method.start(golden['init/features'], golden['init/labels'], torch.Generator())
    memory = method.memory_bank
    assert_golden(memory.feature_bank, golden['init/feature_bank'], 'first bank')
    assert_golden(memory.centroids, golden['init/centroids'], 'first centroids')
    assert_golden(method.loss_weight, golden['init/loss_weight'], 'first weights')
    loaded = method.load_state_dict({key[6:]: value for key, value in golden.items()
                                     if key[:6] == 'state/'}, strict=False)
    assert not loaded.unexpected_keys and all(
        key == 'loss_weight' or key.startswith('memory_bank.') for key in loaded.missing_keys)

    rest = [*method.backbone.parameters(), *method.neck.parameters()]
    optimizer = torch.optim.SGD([dict(params=rest, momentum=0.9),
                                 dict(params=method.head.parameters(), momentum=0.)],
                                lr=0.1, weight_decay=1e-4)
    for step in range(4):
        read = {key.split('/', 1)[1]: value for key, value in golden.items()
                if key.startswith(f'step{step}/')}
        optimizer.zero_grad()
        method.begin_step(Progress(0, step, 4, 4))
        assert memory.label_bank[read['idx']].equal(read['label'])
        outputs = method([read['img']], index=read['idx'])
        outputs['loss_cls'].backward()
        assert_golden(outputs['loss_cls'], read['loss'], f'step {step} loss')
        assert_golden(100 * outputs['acc'], read['acc_percent'][0], 'accuracy')
        assert_golden(outputs['change_ratio'], read['change_ratio'], 'change ratio')
        for key, parameter in method.named_parameters():
            atol = 1e-4 if key == 'neck.fc0.bias' else 1e-6  # in front of a norm: only rounding
            assert_golden(parameter.grad, read[f'grad/{key}'], key, rtol=2e-5, atol=atol)
        assert memory.label_bank.equal(read['labels_after_sample_update'])
        assert_golden(memory.feature_bank, read['feature_bank'], 'feature bank')
        optimizer.step()
        before = memory.splits.item()
        method.end_step()
        assert memory.splits.item() - before == sum('from_cluster' in key for key in read)
        assert memory.label_bank.equal(read['labels_after_hook'])
        assert_golden(memory.centroids, read['centroids_after_hook'], 'centroids')
        assert_golden(method.loss_weight, read['loss_weight_after_hook'], 'weights')
    state = method.state_dict()
    for key, value in golden.items():
        if key.startswith('final/'):
            ours = 'loss_weight' if 'criterion' in key else key[6:]
            assert_golden(state[ours], value, key, rtol=1e-5, atol=1e-5)


def test_a_split_never_leaves_a_part_empty():
    assert split_in_two(np.ones((5, 3), np.float32)).tolist() == [False, True] * 2 + [False]
    rows = np.concatenate([np.zeros((4, 2)), np.ones((3, 2))]).astype(np.float32)
    parts = split_in_two(rows)
    assert len(set(parts[:4])) == len(set(parts[4:])) == 1 and parts[0] != parts[4]
    assert split_in_two(rows).tolist() == parts.tolist()


def test_small_classes_are_dissolved_and_the_largest_is_split():
    memory = ODCMemory(20, 4, clusters=3, min_cluster=3)
    labels = torch.tensor([0] * 11 + [1] * 7 + [2] * 2)
    memory.start(F.normalize(torch.randn(20, 4), dim=1), labels)
    memory.deal_with_small_clusters()
    assert memory.splits == 1 and memory.sizes.sum() == 20 and (memory.sizes > 0).all()
    settled, centroids = memory.label_bank.clone(), memory.centroids.clone()
    assert (memory.sizes >= 3).all()
    memory.deal_with_small_clusters()
    assert memory.label_bank.equal(settled) and memory.centroids.equal(centroids)


def test_a_start_with_an_empty_class_fills_it():
    memory = ODCMemory(20, 4, clusters=4, min_cluster=2)
    memory.start(torch.rand(20, 4), torch.arange(20) % 3)
    assert (memory.sizes > 0).all()
    memory.update_centroids()
    for number in range(4):
        mean = memory.feature_bank[memory.label_bank == number].mean(0)
        torch.testing.assert_close(memory.centroids[number], mean)


def test_weights_follow_the_sizes_only_if_asked():
    for reweight in (True, False):
        method = build(with_options('ODC', reweight=reweight))
        method.start(torch.rand(20, 16), torch.tensor([0] * 12 + [1] * 4 + [2] * 4),
                     torch.Generator())
        expected = torch.tensor([12., 4, 4]) ** -0.5 if reweight else torch.ones(3)
        torch.testing.assert_close(method.loss_weight, expected / expected.sum())


def test_sizes_that_cannot_work_are_refused():
    with pytest.raises(UserError, match='20 tiles cannot form 3 clusters of at least 7; expected '
                                        'at most 2, or a smaller model.min_cluster'):
        build(with_options('ODC', min_cluster=7))
    with pytest.raises(UserError, match='the memory is to hold 30 tiles, the data set has 20'):
        build(with_options('ODC', length=30))
    head = dict(METHODS['ODC']['head'], in_channels=12)
    with pytest.raises(UserError, match='the head takes vectors of size 12, the features have 16'):
        build(with_options('ODC', head=head))
