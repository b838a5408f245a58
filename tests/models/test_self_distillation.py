"""What is ours in DINO, iBOT and DINOv2: phases, exact matches, and what is refused."""

import pytest
import torch
from methods import CASES, METHODS, build, with_options
from toy_model import batch_for, train_step

from openselfsup.errors import UserError
from openselfsup.models.heads.token_terms import MatchedPatches
from openselfsup.models.losses import dino_loss
from openselfsup.models.method import Progress
from openselfsup.models.token_pairs import Seen, TokenPairs, pair_globals, pair_locals
from openselfsup.registry import ALGORITHMS
from openselfsup.training.optimizers import build_optimizer
from openselfsup.training.step import TrainStep
from openselfsup.views import match_cells
from openselfsup.views.draws import Draws

ROWS = 4


def test_temperature_and_momentum_follow_the_run():
    method = build(with_options('DINO', warmup_temperature=0.04, teacher_temperature=0.07,
                                temperature_epochs=2., teacher_momentum=0.9, final_momentum=0.99))
    found = []
    for step in range(9):
        method.begin_step(Progress(step // 3, step, 3, 9))
        found.append((method.temperature, method.momentum))
    assert [t for t, _ in found] == pytest.approx(
        [0.04, 0.046, 0.052, 0.058, 0.064, 0.07, 0.07, 0.07, 0.07])
    assert found[0][1] == pytest.approx(0.9) and found[-1][1] < 0.99
    assert sorted(found, key=lambda pair: pair[1]) == found


@pytest.mark.parametrize('frozen', [-1, 4])
def test_norms_of_frozen_stages_stay_in_the_teacher_too(frozen):
    method = build(with_options('DINO', backbone=dict(type='ResNet', depth=18,
                                                      frozen_stages=frozen)))
    before = {name: value.clone() for name, value in method.backbone.named_buffers()}
    method.train()
    train_step(method, *batch_for(method, ROWS))
    moved = {name for name, value in method.backbone.named_buffers()
             if not value.equal(before[name])}
    assert bool(moved) == (frozen < 0)


def test_heads_learn_alone_then_the_backbone_joins_in():
    method = build(with_options('DINO', heads_only_epochs=1., backbone_warmup_epochs=2.,
                                freeze_last_layer=0.))
    optimizer = build_optimizer(method, dict(type='SGD'), 1.0)

    class Views(torch.nn.Module):
        device = torch.device('cpu')

        def forward(self, batch):
            return batch['views'], batch['maps']

    step = TrainStep(method, Views(), optimizer)
    views, maps = batch_for(method, ROWS)
    rates = []
    for number in range(8):
        before = {key: value.clone() for key, value in method.student.state_dict().items()}
        step(iter([dict(views=views, maps=maps)]), 1, 0.1, Progress(number // 2, number, 2, 8))
        rates.append({group['paced']: group['lr'] for group in optimizer.param_groups})
        moved = {key.partition('.')[0] for key, value in method.student.state_dict().items()
                 if not value.equal(before[key])}
        still = number < 3  # the rate is 0 at the first step of the warm-up, too
        assert moved == ({'head'} if still else {'backbone', 'head'})
        same = all(ours.equal(theirs) for ours, theirs in zip(
            method.student['head'].parameters(), method.teacher['head'].parameters()))
        assert same == (number < 2)
    assert [rate['student.backbone.'] for rate in rates] == pytest.approx(
        [0, 0, 0, 0.025, 0.05, 0.075, 0.1, 0.1])
    assert all(rate[''] == 0.1 for rate in rates)


def test_prototypes_wait():
    method = build(METHODS['DINOv2'])
    assert method.rate_factors() == {'student.head.last_layer.': 0.,
                                     'student.patch_head.last_layer.': 0.}
    method.begin_step(Progress(1, 5, 5, 10))
    assert set(method.rate_factors().values()) == {1.}


def test_the_teacher_drops_nothing_and_keeps_batch_statistics():
    method = build(METHODS['DINO'], torch.nn.BatchNorm2d(16)).train()
    assert [part.training for part in method.teacher.modules()
            if isinstance(part, torch.nn.BatchNorm2d)] == [True]
    assert not any(part.training for part in method.teacher.modules()
                   if not isinstance(part, torch.nn.BatchNorm2d))
    assert not any(part.training for part in method.eval().modules())


def test_the_teacher_of_similarities_is_renewed_when_due():
    method = build(with_options('DINO', gram=dict(type='GramAnchoring', start=1., refresh=2.)))
    weight = method.gram.teacher.conv1.weight
    views, maps = batch_for(method, ROWS)
    changed = []
    for number in range(12):
        before = weight.clone()
        method.begin_step(Progress(number // 2, number, 2, 12))
        changed.append(not weight.equal(before))
        loss = method(views, maps)['loss_gram']
        assert (loss > 0) == (number >= 2)
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        if number not in (1, 5):  # left out, as where fp16 overflows
            method.end_step()
    assert [number for number, new in enumerate(changed) if new] == [2, 6, 10]


# ---- cells ----

def seen(crops, grid, dim=6):
    return Seen(torch.randn(crops, dim), torch.randn(crops, grid[0] * grid[1], dim), grid)


def test_pairs_are_those_of_the_exact_overlaps():
    method = build(CASES['DINO, cells'])
    _, maps = batch_for(method, ROWS)
    big, small = seen(2 * ROWS, (7, 7)), seen(2 * ROWS, (3, 3))
    own = seen(2 * ROWS, (7, 7))
    mask = torch.rand(2 * ROWS, 49) < 0.3
    pairs = pair_globals(own, big, maps, 'axis_aligned', mask)
    for g in range(2):  # the teacher's crop
        expected = match_cells(maps[:, 1 - g], maps[:, g], 7)
        torch.testing.assert_close(pairs.match[g, :, 0], expected.match_q)
        torch.testing.assert_close(pairs.weight[g, :, 0], expected.weight_q)
        assert pairs.student[g, :, 0].equal(own.patches.unflatten(0, (2, ROWS))[1 - g])
        assert pairs.visible[g, :, 0].equal(~mask.unflatten(0, (2, ROWS))[1 - g])
        torch.testing.assert_close(pairs.seen_by_teacher()[g, :, 0],
                                   expected.match_q @ big.patches.unflatten(0, (2, ROWS))[g])
    pairs = pair_locals(small, big, maps, 2, 'axis_aligned')
    for g in range(2):
        for crop in range(2):
            expected = match_cells(maps[:, 2 + crop], maps[:, g], 3, key_grid=7)
            torch.testing.assert_close(pairs.match[g, :, crop], expected.match_q)
            torch.testing.assert_close(pairs.weight[g, :, crop], expected.weight_q)
            assert pairs.student[g, :, crop].equal(
                small.patches.unflatten(0, (2, ROWS))[crop])


def drawn_pairs(weight, visible=None):
    cells = weight.shape[-1]
    return TokenPairs(torch.randn(*weight.shape, 6), torch.randn(2, weight.shape[1], 9, 6), weight,
                      torch.rand(*weight.shape, 9).softmax(-1),
                      None if visible is None else visible.expand(*weight.shape[:3], cells))


def test_cells_are_drawn_by_their_coverage_and_never_without():
    weight = torch.tensor([0.0, 0.4, 0.5, 1.0, 0.75, 0.9]).expand(2, 300, 1, 6).clone()
    draws = Draws.at(0, positions=torch.arange(300).numpy())
    visible = torch.tensor([True, True, True, True, True, False])
    rows, valid = MatchedPatches().draw(drawn_pairs(weight, visible), 2, draws)
    assert rows.shape == (2, 300, 1, 2) and valid.all()
    assert (rows[..., 0] != rows[..., 1]).all() and set(rows.unique().tolist()) == {2, 3, 4}
    first = (rows[..., 0].flatten()[:, None] == torch.tensor([2, 3, 4])).float().mean(0)
    expected = torch.tensor([0.5, 1.0, 0.75]) / 2.25
    torch.testing.assert_close(first, expected, rtol=0, atol=0.06)
    rows, valid = MatchedPatches().draw(drawn_pairs(weight, visible), 5, draws)
    assert valid.sum(-1).unique().tolist() == [3]  # of those drawn, as many as may be


def test_the_loss_of_cells_is_that_of_their_places_alone():
    method = build(CASES['DINO, distributions of cells'])
    views, maps = batch_for(method, ROWS)
    apart = maps.clone()
    apart[:, 0, :, :2], apart[:, 1, :, :2] = 0.3 * torch.eye(2), 0.3 * torch.eye(2)
    apart[:, 0, :, 2], apart[:, 1, :, 2] = 0., 0.7
    apart[:, 2:, :, :2], apart[:, 2:, :, 2] = 0.1 * torch.eye(2), 0.45
    outputs, gradients = train_step(method, views, apart)
    assert outputs['loss_matched'] == 0 and outputs['matched_rows'] == 0
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert train_step(method, views, maps)[0]['loss_matched'] > 0


# ---- what it survives and refuses ----

@pytest.mark.parametrize('spread', ['koleo', 'kde'])
def test_blank_tiles_have_losses_and_gradients_in_bounds(spread):
    method = build(with_options('DINOv2', **{
        key: value for key, value in CASES['DINO, cells'].items() if key in (
            'matched', 'alignment', 'gram')}, spread=spread))
    views, maps = batch_for(method, ROWS)
    blank = [torch.ones_like(view) for view in views]
    for key in f'loss_{spread}', 'loss_alignment', 'loss_gram':
        method.zero_grad()
        outputs = method(blank, maps)
        assert all(value.isfinite() for value in outputs.values())
        outputs[key].backward()
        assert all(p.grad.abs().max() < 10 for p in method.parameters() if p.grad is not None), key


def test_the_loss_is_that_of_the_crops():
    method = build(METHODS['DINO'])
    views, maps = batch_for(method, ROWS)
    outputs = method(views, maps)
    with torch.no_grad():
        teacher, student = ([net['head'](net['backbone'](view)[-1].mean((2, 3)))
                             for view in views] for net in (method.teacher, method.student))
        targets = (torch.stack(teacher[:2]) / 0.04).softmax(-1)  # the centre begins at 0
        expected = dino_loss(targets, torch.stack(student))
    torch.testing.assert_close(outputs['loss_dino'].detach(), expected)


@pytest.mark.parametrize('name', ['iBOT', 'DINOv2'])
def test_a_backbone_without_a_mask_token_is_refused(name):
    row = {key: value for key, value in METHODS[name].items() if key != 'backbone'}
    with pytest.raises(UserError, match=f'{name} masks patches.*ToyBackbone.*MatchedPatches'):
        build(row)


@pytest.mark.parametrize('sizes', [[56], [56, 48], [56, 56, 64], [56, 56, (40, 96)],
                                   [56, 56, (96, 40)]])
def test_other_crops_are_refused(sizes):
    method = build(METHODS['DINO'])
    with pytest.raises(UserError, match='two global crops of one size first, and none larger'):
        method([torch.randn(2, 3, *(size if isinstance(size, tuple) else (size, size)))
                for size in sizes])


@pytest.mark.parametrize('options, match', [
    (dict(targets='softmax'), "'centering' or 'sinkhorn'"),
    (dict(spread='entropy'), "'koleo' or 'kde'"),
    (dict(matched=dict(type='MatchedPatches', mix='tokens')), "'features' or 'distributions'"),
    (dict(prototype=3), 'prototype')])
def test_impossible_settings_are_refused(options, match):
    with pytest.raises((UserError, TypeError), match=match):
        ALGORITHMS.build({**METHODS['DINOv2'], **options})
