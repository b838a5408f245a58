"""Gradients bounded together, by part or by tensor."""

import math

import pytest
import torch
from torch import nn

from openselfsup.training.clipping import Clip, parts_of


class Pair(nn.Module):
    """A method of two parts in a ModuleDict, one beside it, and a frozen twin."""

    def __init__(self):
        super().__init__()
        self.student = nn.ModuleDict(dict(backbone=nn.Linear(2, 2), head=nn.Linear(2, 1)))
        self.teacher = nn.ModuleDict(dict(backbone=nn.Linear(2, 2))).requires_grad_(False)
        self.extra = nn.Linear(2, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(1))


def with_gradients(size=10.):
    module = Pair()
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, size)
    return module


def test_parts_are_children_and_what_their_dicts_hold():
    parts = parts_of(Pair())
    assert {name: len(part) for name, part in parts.items()} == dict(
        backbone=2, head=2, extra=1, own=1)


@pytest.mark.parametrize('by, expected', [
    ('all', dict(grad_norm=10 * math.sqrt(6 + 3 + 2 + 1))),
    ('part', dict(grad_norm_backbone=10 * math.sqrt(6), grad_norm_head=10 * math.sqrt(3),
                  grad_norm_extra=10 * math.sqrt(2), grad_norm_own=10.))])
def test_norms_are_remembered_and_bounded(by, expected):
    module = with_gradients()
    clip = Clip(module, 3.0, by)
    clip([])
    assert {name: float(norm) for name, norm in clip.norms.items()} == pytest.approx(expected)
    clip([])
    assert all(float(norm) == pytest.approx(3.0, rel=1e-5) for norm in clip.norms.values())


def test_each_tensor_has_a_bound_of_its_own():
    module = with_gradients()
    Clip(module, 3.0, 'tensor')([])
    for parameter in module.parameters():
        assert not parameter.requires_grad or parameter.grad.norm() == pytest.approx(3, rel=1e-5)


def test_small_gradients_none_and_no_bound_stay_as_they_are():
    module = with_gradients(1e-3)
    Clip(module, 3.0, 'part')([])
    assert module.scale.grad == 1e-3
    module = with_gradients(1e3)
    module.student['head'].zero_grad(set_to_none=True)
    clip = Clip(module, None, 'part')
    clip([])
    assert module.scale.grad == 1e3 and clip.norms['grad_norm_head'] == 0
