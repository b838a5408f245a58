import pytest
import torch
from torch import nn

from openselfsup.errors import UserError
from openselfsup.training.optimizers import LARS, build_optimizer


def test_lars_equals_its_equation_computed_by_hand():
    torch.manual_seed(0)
    w, b = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3))
    gw, gb = torch.randn(3, 4), torch.randn(3)
    optimizer = LARS([w, b], lr=0.5, momentum=0.9, weight_decay=0.01, eta=0.02)
    expect_w, expect_b = w.detach().clone(), b.detach().clone()
    vw, vb = torch.zeros(3, 4), torch.zeros(3)
    for _ in range(3):
        w.grad, b.grad = gw.clone(), gb.clone()
        optimizer.step()
        rate = 0.02 * expect_w.norm() / (gw.norm() + 0.01 * expect_w.norm() + 1e-8)
        vw = 0.9 * vw + 0.5 * rate * (gw + 0.01 * expect_w)
        vb = 0.9 * vb + 0.5 * gb
        expect_w, expect_b = expect_w - vw, expect_b - vb
    torch.testing.assert_close(w.detach(), expect_w)
    torch.testing.assert_close(b.detach(), expect_b)


def test_groups_leave_out_frozen_parameters_and_may_spare_norm_and_bias():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    module[2].requires_grad_(False)
    optimizer = build_optimizer(module, dict(type='SGD', lr=9, momentum=0.9, weight_decay=0.1,
                                             decay_norm_and_bias=False), lr=0.5)
    with_decay, without = optimizer.param_groups
    assert [p.shape for p in with_decay['params']] == [(4, 3, 3, 3)]
    assert len(without['params']) == 3 and without['weight_decay'] == 0
    assert {g['lr'] for g in optimizer.param_groups} == {0.5}
    assert len(build_optimizer(module, dict(type='AdamW', lr=1.0), 1.0).param_groups) == 1


def test_a_frozen_model_is_refused():
    module = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(UserError, match='no trainable parameter'):
        build_optimizer(module, dict(type='LARS', lr=1.0), 1.0)
