from pathlib import Path

import numpy as np
import pytest
import torch
from methods import METHODS, toy
from torch import nn
from toy_model import random_batch, train_step

from openselfsup.errors import UserError
from openselfsup.models.heads.adversary import WeightAdversary
from openselfsup.registry import ALGORITHMS
from openselfsup.training.preprocessor import Preprocessor
from openselfsup.training.step import TrainStep

GOLDEN = Path(__file__).parents[1] / 'data/golden'
NAMES = {'resnet.': 'encoder_q.backbone.', 'instance_projector.': 'encoder_q.neck.mlp.',
         'groupDis.0.': 'encoder_q.group_neck.'}


def golden_part(golden, prefix):
    part = {}
    for key in golden.files:
        if key.startswith(prefix):
            name = key[len(prefix):]
            for theirs, ours in NAMES.items():
                name = name.replace(theirs, ours)
            part[name] = torch.from_numpy(golden[key])
    return part


def total(outputs):
    return sum(value for key, value in outputs.items() if key.startswith('loss'))


def test_the_golden_step_of_ca2cl():
    golden = np.load(GOLDEN / 'ca2cl_step.npz')
    algorithm = toy('CA2CL', cluster={}, adversary={}, clusters=4)
    algorithm.load_state_dict(golden_part(golden, 'state/'))
    views = [torch.from_numpy(golden[f'x_{name}']) for name in ('strong', 'weak')]
    close = dict(rtol=1e-5, atol=1e-6)
    for view, name in zip(views, ('strong', 'weak')):
        z, g = algorithm.encode(algorithm.encoder_q, view)
        np.testing.assert_allclose(z.detach(), golden[f'z_{name}'], **close)
        np.testing.assert_allclose(g.detach(), golden[f'group_{name}'], **close)

    clean = total(algorithm.contrast(*(algorithm.encode(algorithm.encoder_q, v) for v in views)))
    offset, finite = algorithm.adversary.offset(algorithm.backbone.conv1.weight, clean)
    assert finite
    np.testing.assert_allclose(offset, golden['perturbation'], **close)
    attacked, _ = algorithm.adversary.encode_attacked(algorithm.encoder_q, algorithm.encode,
                                                      views[0], offset)
    np.testing.assert_allclose(attacked.detach(), golden['z_adversarial'], **close)
    clean.backward()
    for name, gradient in golden_part(golden, 'grad_clean/').items():
        torch.testing.assert_close(algorithm.get_parameter(name).grad, gradient, **close)

    outputs, gradients = train_step(algorithm, views, None)
    for name, weight in (('instance', 1), ('cluster', 0.1), ('adversarial', 1)):
        np.testing.assert_allclose(outputs[f'loss_{name}'], weight * golden[f'loss_{name}'],
                                   **close)
    published = golden_part(golden, 'grad_total/')
    assert gradients.keys() == published.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, published[name], **close)


@pytest.mark.parametrize('name, target', [
    ('CA2CL', 'backbone.conv1.weight'), ('CA2CL', 'backbone.conv2.weight'),
    ('CA2CL', 'backbone.conv1.bias'), ('CA2CL', 'neck.mlp.0.weight'),
    ('MoCo', 'backbone.conv2.weight'),
    ('PLM', 'neck.mlp2.2.weight')])
def test_gradients_are_finite_differences_whatever_is_attacked(name, target):
    parts = dict(cluster={}) if name == 'CA2CL' else {}
    algorithm = toy(name, adversary=dict(target=target), **parts).double()
    algorithm.begin_pass(first=False)
    views, maps = random_batch(8, dtype=torch.float64)
    memory = {key: value.clone() for key, value in algorithm.named_buffers()}

    def loss():
        algorithm.load_state_dict(memory, strict=False)  # the queues as they were
        return total(algorithm(views, maps))

    offsets, original = [], algorithm.adversary.offset
    algorithm.adversary.offset = lambda *a: offsets.append(original(*a)) or offsets[-1]
    loss().backward()
    assert offsets[0][0].norm().item() == pytest.approx(1)  # epsilon

    algorithm.adversary.offset = lambda *a: offsets[0]  # a constant of the step
    parameters = list(algorithm.encoder_q.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    for _ in range(3):
        directions = [torch.randn_like(parameter) for parameter in parameters]
        length = sum(d.square().sum() for d in directions).sqrt()
        slope = sum((p.grad * d).sum() for p, d in zip(parameters, directions)) / length
        values = []
        for h in (1e-7, -1e-7):  # so short that hardly a ReLU switches
            with torch.no_grad():
                for parameter, start, direction in zip(parameters, kept, directions):
                    parameter.copy_(start + h / length * direction)
            values.append(loss().detach())
        torch.testing.assert_close((values[0] - values[1]) / 2e-7, slope, rtol=1e-4, atol=3e-7)


@pytest.mark.parametrize('norm, relative', [('l2', False), ('l2', True), ('linf', False),
                                            ('linf', True)])
def test_the_offset_is_the_steepest_of_its_size(norm, relative):
    algorithm = toy('SimCLR', adversary=dict(norm=norm, relative=relative, epsilon=0.5)).double()
    views, _ = random_batch(8, dtype=torch.float64)
    weight = algorithm.backbone.conv1.weight
    loss = total(algorithm.contrast(*(algorithm.encode(algorithm.encoder_q, v) for v in views)))
    offset, _ = algorithm.adversary.offset(weight, loss)
    order = dict(l2=2, linf=torch.inf)[norm]
    size = 0.5 * (torch.linalg.vector_norm(weight, order).item() if relative else 1)
    assert torch.linalg.vector_norm(offset, order).item() == pytest.approx(size)
    gradient, = torch.autograd.grad(loss, weight)
    dual = torch.linalg.vector_norm(gradient, dict(l2=2, linf=1)[norm])  # Hölder, with equality
    torch.testing.assert_close((offset * gradient).sum(), size * dual)


def test_the_size_of_the_gradient_does_not_matter():
    """Gradients near the limits of float32, as loss scaling makes them."""
    algorithm = toy('SimCLR', adversary={})
    weight = algorithm.backbone.conv1.weight
    offsets = []
    for scale in (1e-30, 1.0, 1e30):
        loss = (weight * torch.linspace(-1, 1, weight.numel()).view_as(weight)).sum()
        offset, finite = algorithm.adversary.offset(weight, loss, scale)
        assert finite
        offsets.append(offset)
    torch.testing.assert_close(offsets[0], offsets[1])
    torch.testing.assert_close(offsets[2], offsets[1])
    assert (algorithm.adversary.offset(weight, (weight * 0).sum())[0] == 0).all()


@pytest.mark.parametrize('name', ['SimCLR', 'MoCo', 'PLM'])
def test_no_weight_changes_and_memories_advance_once(name):
    views, maps = random_batch(8)
    states, outputs = [], []
    for adversary in (None, {}):
        torch.manual_seed(1)
        algorithm = toy(name, adversary=adversary)
        before = {key: value.clone() for key, value in algorithm.named_parameters()
                  if key.startswith('encoder_q')}
        outputs.append(algorithm(views, maps))
        for key, value in before.items():
            assert value.equal(algorithm.get_parameter(key))
        states.append(algorithm.state_dict())
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    for key in outputs[0]:
        assert outputs[0][key].equal(outputs[1][key]), key
    assert not outputs[1]['loss_adversarial'].equal(total(outputs[0]))  # an attack it was


def test_the_attack_is_seen_under_autocast():
    algorithm = toy('SimCLR', adversary={})
    views, _ = random_batch(8)
    with torch.autocast('cpu', torch.bfloat16):
        clean, = algorithm.encode(algorithm.encoder_q, views[0])
        outputs = algorithm(views)
        zero = torch.zeros_like(algorithm.backbone.conv1.weight)
        same, = algorithm.adversary.encode_attacked(algorithm.encoder_q, algorithm.encode,
                                                    views[0], zero)
        moved, = algorithm.adversary.encode_attacked(algorithm.encoder_q, algorithm.encode,
                                                     views[0], zero + 0.1)
    assert same.equal(clean) and (moved - clean).abs().max() > 1e-3
    assert (outputs['loss_adversarial'] - outputs['loss_instance']).abs() > 1e-3
    total(outputs).backward()
    exact, gradients = train_step(algorithm.float(), views, None)
    assert outputs['loss_adversarial'].item() == pytest.approx(
        exact['loss_adversarial'].item(), rel=0.02)


@pytest.mark.parametrize('bn', ['shared', 'frozen', 'auxiliary'])
def test_statistics_of_batch_norm(bn):
    algorithm = toy('SimCLR', adversary=dict(bn=bn), norm=nn.BatchNorm2d(16))
    norm = algorithm.backbone.norm
    total(algorithm(random_batch(8)[0])).backward()
    assert norm.num_batches_tracked == dict(shared=3, frozen=2, auxiliary=2)[bn]
    reference = toy('SimCLR', norm=nn.BatchNorm2d(16))
    reference.load_state_dict(algorithm.state_dict(), strict=False)
    reference.backbone.norm.reset_running_stats()
    reference(random_batch(8)[0])
    same = torch.allclose(reference.backbone.norm.running_mean, norm.running_mean)
    assert same == (bn != 'shared')
    if bn == 'auxiliary':
        own = algorithm.adversary.auxiliary['backbone/norm']
        assert own.num_batches_tracked == 1 and own.weight.grad.abs().sum() > 0
    else:
        assert not list(algorithm.adversary.parameters())


def test_auxiliary_norms_start_as_the_encoder():
    algorithm = toy('SimCLR', adversary=dict(bn='auxiliary'), norm=nn.BatchNorm2d(16))
    algorithm.backbone.norm.weight.data.fill_(3)
    algorithm.adversary.copy_norms(algorithm.encoder_q)
    assert (algorithm.adversary.auxiliary['backbone/norm'].weight == 3).all()


def test_detached_anchors():
    views, _ = random_batch(8)
    gradients = []
    for detach in (False, True):
        torch.manual_seed(1)
        gradients.append(train_step(toy('SimCLR', adversary=dict(detach_anchor=detach)), views,
                                    None)[1]['encoder_q.neck.mlp.2.bias'])
    assert not torch.allclose(*gradients)


def test_no_attack_in_evaluation():
    algorithm = toy('CA2CL', cluster={}, adversary={}).eval()
    with torch.no_grad():
        outputs = algorithm(random_batch(8)[0])
    assert 'loss_adversarial' not in outputs and 'loss_cluster' in outputs


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return dict(views=[torch.randint(0, 256, (8, 3, 56, 56), dtype=torch.uint8,
                                     generator=generator) for _ in range(2)], view_to_tile=None)


@pytest.mark.parametrize('value', [torch.inf, torch.nan])
@pytest.mark.parametrize('amp', ['off', 'bf16', 'fp16'])
def test_a_step_without_a_finite_attack_is_left_out(amp, value):
    algorithm = toy('CA2CL', norm=nn.BatchNorm2d(16), adversary={},
                    cluster=dict(detach_centroids=True, empty='mask'))
    step = TrainStep(algorithm, Preprocessor([0.5] * 3, [0.25] * 3),
                     torch.optim.SGD(algorithm.parameters(), lr=0.1), amp)
    scale = step.scaler.get_scale()
    hook = algorithm.backbone.conv1.weight.register_hook(lambda gradient: gradient * value)
    before = {key: value.clone() for key, value in algorithm.named_parameters()}
    outputs = step(iter([batch(0)]), 1, lr=0.1)
    assert outputs['skip_step'] == 1 and outputs['perturbation'] == 0
    assert torch.isfinite(outputs['loss'])
    for key, parameter in algorithm.named_parameters():
        assert parameter.equal(before[key]) and parameter.grad is None
    assert all(torch.isfinite(buffer).all() for buffer in algorithm.buffers())
    assert step.scaler.get_scale() == scale * (0.5 if amp == 'fp16' else 1)

    hook.remove()
    for seed in range(1, 12):  # the scale of fp16 has to fall to where the attack is finite
        outputs = step(iter([batch(seed)]), 1, lr=0.1)
        if outputs['skip_step'] == 0:
            break
    assert outputs['skip_step'] == 0
    assert not algorithm.backbone.conv1.weight.equal(before['encoder_q.backbone.conv1.weight'])


@pytest.mark.parametrize('settings, words', [
    (dict(target='backbone.conv1.weigth'), "did you mean 'backbone.conv1.weight'"),
    (dict(norm='l1'), "norm must be 'l2' or 'linf'"),
    (dict(bn='none'), "bn must be 'shared', 'frozen' or 'auxiliary'"),
    (dict(epsilon=0), 'epsilon must be a number above 0')])
def test_impossible_settings(settings, words):
    with pytest.raises(UserError, match=words):
        toy('SimCLR', adversary=settings)


@pytest.mark.parametrize('name, target', [('CA2CL', 'group_neck.weight'),
                                          ('PLM', 'matching_neck.fc.weight')])
def test_what_takes_no_part_in_the_adversarial_loss_is_not_attacked(name, target):
    algorithm = toy(name, adversary=dict(target=target), **(
        dict(cluster={}) if name == 'CA2CL' else {}))
    with pytest.raises(UserError, match=rf"model.adversary.target: '{target}' takes no part"):
        algorithm(*random_batch(8))


def test_what_is_frozen_is_not_attacked():
    encoder = toy('SimCLR').encoder_q
    encoder.backbone.conv1.requires_grad_(False)
    assert WeightAdversary(encoder).target == 'backbone.conv2.weight'
    with pytest.raises(UserError, match=r"target is 'backbone\.conv1\.weight', which is frozen; .*"
                                        r"that learns; did you mean 'backbone\.conv2\.weight'"):
        WeightAdversary(encoder, target='backbone.conv1.weight')
    encoder.backbone.requires_grad_(False)
    with pytest.raises(UserError, match="no convolution .* such as 'neck.mlp.2.bias'"):
        WeightAdversary(encoder)
    assert WeightAdversary(encoder, 'neck.mlp.2.bias').target == 'neck.mlp.2.bias'
    with pytest.raises(UserError, match='no convolution .* fewer frozen stages'):
        WeightAdversary(encoder.requires_grad_(False))


def test_a_resnet_with_frozen_stages_is_attacked_where_it_learns():
    def build(stages, target=None):
        return ALGORITHMS.build(METHODS['SimCLR'] | dict(
            backbone=dict(type='ResNet', depth=18, frozen_stages=stages),
            neck=dict(METHODS['SimCLR']['neck'], in_channels=512),
            adversary=dict(type='WeightAdversary', target=target)))

    outputs = build(1)([torch.randn(6, 3, 32, 32) for _ in range(2)])
    assert outputs['perturbation'] > 0
    for stages, target in ((1, 'backbone.conv1.weight'), (4, None)):
        with pytest.raises(UserError, match='model.adversary'):
            build(stages, target)
