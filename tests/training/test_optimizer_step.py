"""Scaling, clipping and updating, as every loop does it."""

import pytest
import torch

from openselfsup.errors import UserError
from openselfsup.models.norm import SplitBN
from openselfsup.training.optimizer_step import OptimizerStep, enough_for_batch_norm

CPU = torch.device('cpu')


def make(amp: str = 'off', clip=None) -> tuple[torch.nn.Parameter, OptimizerStep]:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    return weight, OptimizerStep(torch.optim.SGD([weight], lr=9.0), CPU, amp, clip)


@pytest.mark.parametrize('amp', ['off', 'fp16'])
def test_a_step_moves_weights_by_rate_times_gradient_whatever_the_loss_scale(amp):
    weight, step = make(amp)
    for _ in range(2):
        step.backward((weight ** 2).sum(), parts=2)
    assert step.update(0.25)
    assert weight.tolist() == [0.5, 1.0] and weight.grad is None
    assert step.optimizer.param_groups[0]['lr'] == 0.25
    assert float(step.loss_scale()) == (1.0 if amp == 'off' else 65536.0)


def test_gradients_are_clipped_without_their_loss_scale():
    weight, step = make('fp16', lambda parameters: torch.nn.utils.clip_grad_value_(parameters, 3.0))
    step.backward((weight ** 2).sum())
    step.update(1.0)
    assert weight.tolist() == [-1.0, -1.0]  # 2 and 4, cut to 3


@pytest.mark.parametrize('fused', [False, True])
def test_whether_the_optimiser_moved_is_told(fused):
    weight = torch.nn.Parameter(torch.ones(2))
    step = OptimizerStep(torch.optim.SGD([weight], lr=9.0, fused=fused), CPU, 'fp16')
    for loss, moved in ((1., True), (torch.inf, False), (1., True), (torch.nan, False)):
        before = weight.detach().clone()
        step.backward(weight.sum() * loss)
        assert step.update(0.5) is moved is not torch.equal(weight, before)


def test_an_overflow_moves_nothing_and_lowers_a_scale_that_can_be_kept():
    weight, step = make('fp16')
    step.backward(weight.sum() * torch.inf)
    assert not step.update(1.0)
    assert weight.tolist() == [1.0, 2.0] and float(step.loss_scale()) == 32768.0
    _, other = make('fp16')
    other.scaler.load_state_dict(step.scaler.state_dict())
    assert float(other.loss_scale()) == 32768.0


def test_a_step_that_is_left_out_leaves_no_gradient():
    for amp, scale in (('off', 1.0), ('fp16', 32768.0)):
        weight, step = make(amp)
        step.backward(weight.sum())
        step.leave_out()
        assert weight.tolist() == [1.0, 2.0] and weight.grad is None
        assert float(step.loss_scale()) == scale


def test_a_batch_without_variance_is_told_and_other_errors_are_left_alone():
    image = torch.zeros(1, 3, 1, 1)
    for layer, seen, advice in (
            (torch.nn.BatchNorm2d(3), image, r'forward pass, or larger views$'),
            (torch.nn.BatchNorm1d(3), image.flatten(1), r'forward pass$'),  # whatever the size
            (SplitBN(3, 8), image, r'forward pass, or larger views$')):  # one tile, one part
        with pytest.raises(UserError, match=r'--batch_size: 1 tile\(s\) of 1 px .* at least 2 '
                                            r'tiles per rank and ' + advice):
            with enough_for_batch_norm(image, '--batch_size'):
                layer(seen)
    with pytest.raises(ValueError, match='something else'):
        with enough_for_batch_norm(image, '--batch_size'):
            raise ValueError('something else')


def test_factors_slow_groups_down_and_0_leaves_them_and_their_momenta():
    still, slow, free = (torch.nn.Parameter(torch.ones(1)) for _ in range(3))
    step = OptimizerStep(torch.optim.AdamW([
        dict(params=[still], paced='backbone.'), dict(params=[slow], paced='head.', lr_mult=0.5),
        dict(params=[free])], lr=9., weight_decay=0.1), CPU)
    step.backward(still.sum() + slow.sum() + free.sum())
    step.update(0.2, {'backbone.': 0., 'head.': 0.25}, decay=2.)
    assert still == 1 and not step.optimizer.state[still]
    assert slow.item() == pytest.approx(1 * (1 - 0.025 * 0.2) - 0.025)
    assert free.item() == pytest.approx(1 * (1 - 0.2 * 0.2) - 0.2)
    assert [group['weight_decay'] for group in step.optimizer.param_groups] == [0.2] * 3
