import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from openselfsup.errors import UserError
from openselfsup.training.optimizer_step import OptimizerStep
from openselfsup.training.optimizers import (
    LARS,
    build_optimizer,
    layer_factors,
    paced_groups,
    parameter_groups,
)

GOLDEN = Path(__file__).parents[1] / 'data/golden'


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


@pytest.mark.parametrize('form', ['openselfsup', 'vicregl'])
def test_lars_is_the_published_one(form):
    golden = np.load(GOLDEN / f'lars_{form}.npz')
    meta = {key: float(golden[f'meta/{key}']) for key in ('lr', 'momentum', 'weight_decay', 'eta')}
    tensors = {key[6:]: nn.Parameter(torch.from_numpy(golden[key])) for key in golden.files
               if key.startswith('state/')}
    groups = [dict(params=[p], **(dict(lars_exclude=True, weight_decay=0.) if name == 'excluded'
                                  else {})) for name, p in tensors.items()]
    exclude, buffer = (False, 'momentum_buffer') if form == 'openselfsup' else (None, 'mu')
    optimizer = LARS(groups, **meta, lars_exclude=exclude, form=form)
    for step in range(3):
        for name, parameter in tensors.items():
            parameter.grad = torch.from_numpy(golden[f'step{step}/grad/{name}'])
        for group in optimizer.param_groups:
            group['lr'] = float(golden[f'step{step}/lr'])
        optimizer.step()
        for name, parameter in tensors.items():
            if name == 'zero' and form == 'openselfsup':
                assert parameter.abs().min() > 0  # published: it never moves
                continue
            for ours, theirs in ((parameter, 'param'),
                                 (optimizer.state[parameter]['momentum_buffer'], buffer)):
                torch.testing.assert_close(
                    ours.detach(), torch.from_numpy(golden[f'step{step}/{theirs}/{name}']),
                    rtol=1e-5, atol=1e-6)


def test_lars_moves_what_has_no_norm_and_takes_no_gradient_for_nothing():
    w, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([w, still], lr=0.5, momentum=0.9, weight_decay=0.)
    w.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    optimizer.step()
    assert w.eq(-0.5).all() and still.eq(1).all()


def test_lars_with_nesterov_and_dampening_is_sgd_where_nothing_is_adapted():
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 4), torch.randn(4, 3, 4)
    for settings in (dict(nesterov=True), dict(dampening=0.4)):
        found = []
        for cls, more in ((LARS, dict(lars_exclude=True)), (torch.optim.SGD, {})):
            w = nn.Parameter(start.clone())
            optimizer = cls([w], lr=0.1, momentum=0.8, weight_decay=0.01, **settings, **more)
            for gradient in gradients:
                w.grad = gradient.clone()
                optimizer.step()
            found.append(w.detach())
        torch.testing.assert_close(*found)
    with pytest.raises(UserError, match="Nesterov's momentum"):
        build_optimizer(nn.Linear(2, 2), dict(type='LARS', momentum=0.9, nesterov=True,
                                              form='vicregl'), 1.0)


def test_patterns_are_tried_in_order_and_the_later_one_counts(caplog):
    module = nn.ModuleDict(dict(body=nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
                                head=nn.Linear(4, 2)))
    module['body'][0].bias.requires_grad_(False)
    optimizer = build_optimizer(module, dict(
        type='SGD', momentum=0.8, weight_decay=0.1, paramwise_options={
            'bias': dict(weight_decay=0., momentum=0.5),
            r'^head\.': dict(lr_mult=10, weight_decay=0.3),
            'head.bias': dict(momentum_mult=0.25), 'nothing': dict(weight_decay=1.)}), 0.2)
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    found = {name: group for name, group in zip(names, optimizer.param_groups)}
    assert all(len(group['params']) == 1 for group in found.values()) and len(found) == 5
    assert [found[name]['weight_decay'] for name in names] == [0.1, 0.1, 0., 0.3, 0.3]
    assert [found[name]['momentum'] for name in names] == [0.8, 0.8, 0.5, 0.8, 0.2]
    assert "'nothing' is found in the name of no parameter" in caplog.text
    step = OptimizerStep(optimizer, torch.device('cpu'))
    step.update(0.05)
    assert [group['lr'] for group in optimizer.param_groups] == [0.05, 0.05, 0.05, 0.5, 0.5]


def test_options_that_are_lists_join_groups_too():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    groups = parameter_groups(dict(module.named_parameters()), {'bias': dict(betas=[0.9, 0.95])},
                              dict(type='AdamW'))
    joined = paced_groups([name for name, _ in module.named_parameters()], groups,
                          dict.fromkeys(dict(module.named_parameters()), 1.), ())
    assert [len(group['params']) for group in joined] == [2, 2]
    assert joined[1]['betas'] == (0.9, 0.95)


@pytest.mark.parametrize('options, words', [
    ({'(': dict(weight_decay=0.)}, r"'\(': no regular expression"),
    ({'bias': dict(lars_exclude=True)}, "SGD has no option 'lars_exclude'"),
    ({'bias': dict(weigth_decay=0.)}, "did you mean 'weight_decay'"),
    ({'bias': dict(weight_decay=-1.)}, 'weight_decay must be a number of at least 0'),
    ({'bias': dict(nesterov_mult=2)}, "no option 'nesterov_mult'"),
    ({'bias': 0.}, 'must be a dict of options')])
def test_options_that_are_none_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        build_optimizer(nn.Linear(2, 2), dict(type='SGD', paramwise_options=options), 1.0)


@pytest.mark.parametrize('case', ['centering_tied', 'sinkhorn_untied_registers'])
def test_groups_of_dinov2_are_the_published_ones(case):
    golden = np.load(GOLDEN / f'dinov2_step_{case}.npz')
    settings = json.loads(str(golden['settings_json']))
    published = json.loads(str(golden['param_groups_json']))
    method = nn.Module()
    for name in published:
        *path, last = name.split('.')
        owner = method
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        owner.register_parameter(last, nn.Parameter(torch.zeros(2)))
    method.rate_factors = lambda: {'dino_head.last_layer.': 0., 'ibot_head.last_layer.': 0.}
    optimizer = build_optimizer(method, dict(
        type='AdamW', weight_decay=0.04, layer_decay=settings['layerwise_decay'],
        paramwise_options={r'\.bias$|norm|gamma': dict(weight_decay=0.),
                           'patch_embed': dict(lr_mult=settings['patch_embed_lr_mult'])}), 1e-3)
    names = {parameter: name for name, parameter in method.named_parameters()}
    ours = {names[p]: [group['lr_mult'], group['weight_decay'] / 0.04, bool(group['paced'])]
            for group in optimizer.param_groups for p in group['params']}
    assert ours.keys() == published.keys()
    for name, (rate, decay, last) in published.items():
        assert ours[name] == [pytest.approx(rate), decay, last], name
    assert len(optimizer.param_groups) <= 10  # equal ones are joined


def test_a_norm_of_the_patch_embedding_learns_as_slowly_as_the_embedding():
    names = ['patch_embed.proj.weight', 'patch_embed.norm.weight', 'norm_pre.weight',
             'blocks.0.norm1.weight', 'blocks.1.norm1.weight', 'norm.weight', 'fc_norm.weight']
    found = layer_factors([f'student.backbone.net.{name}' for name in names], 0.5)
    assert [*found.values()] == [0.125, 0.125, 0.125, 0.25, 0.5, 1., 1.]


def test_layer_decay_needs_the_blocks_of_a_vit():
    with pytest.raises(UserError, match='layer_decay.*ViT'):
        build_optimizer(nn.Linear(2, 2), dict(type='AdamW', layer_decay=0.9), 1e-3)
