import copy

import pytest
import torch
from methods import METHODS, toy
from torch import nn
from toy_model import ToyBackbone, batch_for, random_batch, train_step

from openselfsup.errors import UserError
from openselfsup.models import concepts
from openselfsup.models.algorithms.moco import MoCo
from openselfsup.models.algorithms.momentum import MomentumContrast
from openselfsup.models.backbones.resnet import ResNet
from openselfsup.models.necks.projection import NonLinearNeck
from openselfsup.models.norm import SplitBN
from openselfsup.registry import ALGORITHMS

WITH_KEYS = [name for name, row in METHODS.items()
             if issubclass(ALGORITHMS.get(row['type']), MomentumContrast)]


def state_of(algorithm):
    return {key: value.clone() for key, value in algorithm.state_dict().items()}


def test_the_key_encoder_starts_equal_and_needs_no_gradient():
    algorithm = toy('PLM')
    for q, k in zip(algorithm.encoder_q.parameters(), algorithm.encoder_k.parameters()):
        assert torch.equal(q, k) and q is not k and q.requires_grad and not k.requires_grad


@pytest.mark.parametrize('name', WITH_KEYS)
def test_keys_move_towards_queries_before_they_are_encoded(name):
    algorithm = toy(name)
    views, maps = batch_for(algorithm, 4)
    with torch.no_grad():
        for parameter in algorithm.encoder_q.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = copy.deepcopy(algorithm)
    algorithm(views, maps)
    for q, k, old in zip(algorithm.encoder_q.parameters(), algorithm.encoder_k.parameters(),
                         before.encoder_k.parameters()):
        torch.testing.assert_close(k, 0.99 * old + 0.01 * q)
    # the key that entered the queue is the updated encoder's
    expected = torch.nn.functional.normalize(
        algorithm.encode(algorithm.encoder_k, views[1])[0], dim=1)
    torch.testing.assert_close(algorithm.queue.vectors[:4], expected)


def test_accumulation_can_hold_the_key_encoder():
    algorithm, (views, _) = toy('MoCo'), random_batch(4)
    with torch.no_grad():
        algorithm.backbone.conv1.weight.add_(1)
    before = algorithm.encoder_k['backbone'].conv1.weight.clone()
    algorithm.begin_pass(first=False)
    algorithm(views)
    assert torch.equal(algorithm.encoder_k['backbone'].conv1.weight, before)
    assert algorithm.queue.filled == 4


@pytest.mark.parametrize('name', WITH_KEYS)
def test_shuffled_keys_come_back_in_order(name, monkeypatch):
    """Without batch statistics a shuffle may change nothing: not losses, gradients or queues."""
    plain, shuffled = toy(name), toy(name, shuffle=True)
    views, maps = batch_for(plain, 6)
    # What is drawn after the shuffle is the same without it.
    cells = torch.randint(9, (2, 6, 4))
    monkeypatch.setattr(concepts, 'draw_cells', lambda *_: (cells[0], cells[1]))
    monkeypatch.setattr(concepts, 'random_order', lambda count, total: torch.arange(total))
    shuffled.load_state_dict(plain.state_dict())
    for theirs, ours in zip(train_step(plain, views, maps), train_step(shuffled, views, maps)):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(state_of(shuffled), state_of(plain))


def keys_seen(norm, **arguments):
    """Return in which order the key backbone meets the images 0 to 15."""
    algorithm, (views, _) = toy('MoCo', norm=norm, **arguments), random_batch(16)
    seen = []
    algorithm.encoder_k['backbone'].register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    algorithm(views)
    return torch.cdist(seen[0].flatten(1), views[1].flatten(1)).argmin(1).tolist()


def test_keys_are_really_shuffled_where_it_matters():
    order = list(range(16))
    assert keys_seen(None) == order
    assert keys_seen(nn.BatchNorm2d(16)) == order  # one process: statistics do not change
    assert keys_seen(None, shuffle=True) != order
    assert keys_seen(SplitBN(16, 4)) != order
    assert keys_seen(SplitBN(16, 4), shuffle=False) == order
    assert sorted(keys_seen(None, shuffle=True)) == order


def test_a_seed_repeats_the_shuffle():
    def step(seed):
        algorithm, (views, _) = toy('MoCo', norm=SplitBN(16, 4)), random_batch(8)
        algorithm.load_state_dict(state)
        torch.manual_seed(seed)
        return algorithm(views)['loss_contra']
    state = toy('MoCo', norm=SplitBN(16, 4)).state_dict()
    assert step(1) == step(1) != step(2)


def test_loaded_weights_reach_both_encoders(tmp_path):
    weights = ResNet(18).state_dict()
    torch.save(weights, tmp_path / 'weights.pth')
    algorithm = MoCo(ResNet(18), NonLinearNeck(512), queue_len=8)
    assert algorithm.load_backbone(str(tmp_path / 'weights.pth')).matched == len(weights)
    for encoder in (algorithm.encoder_q, algorithm.encoder_k):
        for key, value in encoder['backbone'].state_dict().items():
            assert torch.equal(value, weights[key]), key


@pytest.mark.parametrize('arguments, words', [
    (dict(momentum=1.5), 'model.momentum: momentum is 1.5; expected a number from 0 to 1'),
    (dict(neck=NonLinearNeck(512, 8, 16)), 'neck takes 512 channels, the backbone gives 24'),
    (dict(feat_dim=32), 'vectors of size 32, the neck projects to 16'),
    (dict(neck=dict(type='NonLinearNeck', in_channels=24)), 'the neck projects to 128'),
    (dict(backbone=dict(type='ResNat')), "no backbone is called 'ResNat'")])
def test_impossible_settings(arguments, words):
    with pytest.raises(UserError, match=words):
        MoCo(**{**dict(backbone=ToyBackbone(), neck=NonLinearNeck(24, 8, 16), feat_dim=16),
                **arguments})
