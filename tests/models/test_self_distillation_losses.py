"""Losses, targets, masks and heads of DINO, iBOT and DINOv2 against published numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_zoo import assert_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.models.heads.dino import DINOHead
from openselfsup.models.losses import (
    dino_loss,
    gram_anchoring,
    kernel_alignment,
    kernel_density,
    koleo,
    masked_patch_loss,
    matched_patch_loss,
    soft_cross_entropy,
)
from openselfsup.models.masking import MaskedPatches, block_mask, draw_masks
from openselfsup.models.targets import Centre, sinkhorn_knopp
from openselfsup.views import match_cells

GOLDEN = Path(__file__).parents[1] / 'data/golden'


def load(name):
    with np.load(GOLDEN / f'{name}.npz') as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def leaf(x):
    return x.clone().requires_grad_()


def test_dino_with_a_centre_is_the_published_one():
    golden = load('dino_loss_centering')
    centre = Centre(24)
    for step in range(3):
        at = {key[6:]: golden[key] for key in golden if key.startswith(f'step{step}/')}
        teacher, temperature = at['teacher_logits'], float(at['teacher_temp'])
        assert_golden(centre.value, at['center_used'][0], 'centre')
        targets = centre(teacher, temperature)
        assert_golden(targets, at['teacher_probs'], 'targets')
        centre.update(teacher)
        crops, locals_ = leaf(at['student_global']), leaf(at['student_local'])
        rows = len(teacher) // 2
        loss = dino_loss(targets.view(2, rows, -1), torch.cat([crops, locals_]).view(-1, rows, 24))
        assert_golden(loss, at['loss_global'] + at['loss_local'], 'loss')
        assert_golden(loss, at['loss_dino_v1'], 'loss of 2021')
        loss.backward()
        assert_golden(crops.grad, at['grad_global'], 'gradient of global crops')
        assert_golden(locals_.grad, at['grad_local'], 'gradient of local crops')
    assert_golden(centre.value, golden['center_final'][0], 'centre at last')


def test_dino_with_sinkhorn_is_the_published_one():
    golden = load('dinov3_dino_loss')
    targets = sinkhorn_knopp(golden['teacher_logits'].flatten(0, 1), 0.07).view(2, 4, 24)
    assert_golden(targets, golden['teacher_probs'], 'targets')
    crops, locals_ = leaf(golden['student_global']), leaf(golden['student_local'])
    loss = dino_loss(targets, torch.cat([crops, locals_]))
    assert_golden(loss, golden['loss_weighted'], 'loss')
    loss.backward()
    assert_golden(crops.grad, golden['grad_global'], 'gradient of global crops')
    assert_golden(locals_.grad, golden['grad_local'], 'gradient of local crops')


def test_sinkhorn_is_the_published_one_whatever_its_largest_logit():
    golden = load('sinkhorn')
    for step in range(3):
        at = {key[6:]: golden[key] for key in golden if key.startswith(f'step{step}/')}
        temperature = float(at['teacher_temp'])
        for kind in 'cls', 'patch':
            found = sinkhorn_knopp(at[f'{kind}_logits'], temperature)
            assert_golden(found, at[f'{kind}_probs'], kind)
        assert_golden(sinkhorn_knopp(at['cls_logits'], temperature, 1),
                      at['cls_probs_1_iteration'], 'one iteration')
        far = sinkhorn_knopp(at['cls_logits'].double() + 1000, temperature)
        torch.testing.assert_close(far.float(), at['cls_probs'], rtol=1e-4, atol=1e-6)


def test_sinkhorn_leaves_out_rows_that_do_not_count_and_takes_no_rows():
    logits = torch.randn(9, 7)
    valid = torch.tensor([1, 0, 1, 1, 0, 1, 1, 0, 1.])
    found = sinkhorn_knopp(logits, 0.1, valid=valid)
    torch.testing.assert_close(found[valid == 1], sinkhorn_knopp(logits[valid == 1], 0.1))
    assert not found[valid == 0].any()
    assert sinkhorn_knopp(logits[:0], 0.1).shape == (0, 7)
    assert not sinkhorn_knopp(logits, 0.1, valid=0 * valid).any()


def test_masked_patches_are_learnt_as_published():
    golden = load('ibot_patch_loss')
    centre = Centre(20)
    for step in range(3):
        at = {key[6:]: golden[key] for key in golden if key.startswith(f'step{step}/')}
        masks = MaskedPatches.of(at['masks'].numpy())
        index, weight = torch.from_numpy(masks.index), torch.from_numpy(masks.weight)
        assert index.equal(at['mask_indices'])
        assert_golden(weight, at['masks_weight'], 'weights')
        assert_golden(centre.value, at['center_used'], 'centre')
        teacher = at['teacher_logits'].flatten(0, 1)[index]
        targets = centre(teacher, float(at['teacher_temp']))
        assert_golden(targets, at['teacher_probs_masked'], 'targets')
        centre.update(teacher)
        student = leaf(at['student_logits'])
        loss = masked_patch_loss(targets, student.flatten(0, 1)[index], weight, len(masks.mask))
        assert_golden(loss, at['loss'], 'loss')
        loss.backward()
        assert_golden(student.grad, at['grad_student'], 'gradient')
    assert_golden(centre.value, golden['center_final'], 'centre at last')


def test_a_centre_without_rows_stays():
    centre = Centre(5)
    centre.update(torch.randn(4, 5))
    before = centre.value.clone()
    centre.update(torch.randn(0, 5))
    centre.update(torch.randn(3, 5), torch.zeros(3))
    assert centre.value.equal(before)


@pytest.mark.parametrize('case, settings', [('plain', {}), ('dinov3_topk2', dict(neighbours=2))])
def test_koleo_is_the_published_one(case, settings):
    golden = load('koleo')
    x = leaf(golden[f'{case}/x'])
    loss = koleo(x, **settings)
    assert_golden(loss, golden[f'{case}/loss'], 'loss')
    loss.backward()
    assert_golden(x.grad, golden[f'{case}/grad'], 'gradient')


def test_equal_tiles_push_without_bound_as_published_and_not_at_all_here():
    golden = load('koleo')
    gradients = []
    for min_distance in 0., 1e-3:
        x = leaf(golden['duplicates/x'])
        loss = koleo(x, min_distance=min_distance)
        loss.backward()
        gradients.append(x.grad.abs().max())
        assert loss.isfinite()
    assert gradients[0] > 1e4 > 100 > gradients[1] > 0
    for kind in koleo, kernel_density:
        x = leaf(torch.ones(6, 8))  # blank tiles, all equal
        loss = kind(x)
        loss.backward()
        assert loss.isfinite() and x.grad.abs().max() < 1


def test_kernel_density_has_the_right_sign():
    golden = load('kde')
    x = leaf(golden['x'])
    loss = kernel_density(x, concentration=float(golden['kappa']))
    assert_golden(loss, golden['own_f64_without_self_loss'].float(), 'loss')
    loss.backward()
    assert_golden(x.grad, golden['own_f64_without_self_grad'].float(), 'gradient')
    with torch.no_grad():  # a step down spreads the tiles, in the published form it does not
        spread = [F.pdist(F.normalize(x + step, dim=1)).mean()
                  for step in (0, -x.grad, golden['openmidnight_grad_kappa5'] * -1.)]
    assert spread[1] > spread[0] > spread[2]


@pytest.mark.parametrize('loss', [koleo, kernel_density])
def test_rows_of_one_rank_against_those_of_all(loss):
    x = torch.randn(8, 6, dtype=torch.float64)
    whole = loss(x)
    parts = [loss(x[first:first + 4], x, first) for first in (0, 4)]
    torch.testing.assert_close(sum(parts) / 2, whole)
    assert loss(x[:1]) == 0


def test_the_head_is_the_published_one():
    golden = load('dino_head')
    head = DINOHead(20, 24, hidden=28, bottleneck=12, trained_norm=True)
    head.load_state_dict({key[6:]: value for key, value in golden.items()
                          if key.startswith('state/')})
    x = leaf(golden['x'])
    y = head(x)
    assert_golden(y, golden['y'], 'logits', atol=1e-5)
    y.backward(golden['upstream'])
    assert_golden(x.grad, golden['grad_x'], 'gradient', atol=1e-5)
    for name, parameter in head.named_parameters():
        assert_golden(parameter.grad, golden[f'grad/{name}'], name, atol=1e-5)


def test_a_head_starts_with_prototypes_of_length_1_which_may_learn():
    for trained in True, False:
        head = DINOHead(20, 24, hidden=28, bottleneck=12, trained_norm=trained)
        assert (head.last_layer.weight_g == 1).all()
        assert head.last_layer.weight_g.requires_grad == trained
        assert head(torch.randn(5, 3, 20)).abs().max() <= 1 + 1e-6  # cosines


def test_gram_anchoring_is_the_published_one():
    golden = load('gram')
    student = leaf(golden['student'])
    loss = gram_anchoring(student, golden['teacher'])
    assert_golden(loss, golden['image/loss'], 'loss')
    loss.backward()
    assert_golden(student.grad, golden['image/grad'], 'gradient')


@pytest.mark.parametrize('case', ['all', 'masked'])
def test_kernel_alignment_is_the_published_one(case):
    golden = load('paka')
    student = leaf(golden['student'])
    weights = None if case == 'all' else (~golden['ignored']).float()
    found = kernel_alignment(student, golden['teacher'], weights)
    assert_golden(found.mean(), golden[f'{case}/loss'], 'loss')
    found.mean().backward()
    assert_golden(student.grad, golden[f'{case}/grad'], 'gradient')
    if case == 'masked':
        assert found.valid.tolist() == [1, 1, 1, 0]


def test_cells_are_matched_and_weighted_as_by_the_formula():
    golden = load('matched_patch_own_f64')
    own, other = (int(side) for side in golden['grids'])
    matching = match_cells(golden['student_to_tile'], golden['teacher_to_tile'], own,
                           key_grid=other)
    torch.testing.assert_close(matching.share_q, golden['share'], rtol=0, atol=1e-12)
    logits = leaf(golden['student_logits'])
    found = matched_patch_loss(matching.share_q, golden['teacher_probs'], logits,
                               float(golden['student_temp']))
    assert found.valid.tolist() == [0, 1, 1, 1]
    torch.testing.assert_close(found.mean(), golden['ce_loss'])
    found.mean().backward()
    torch.testing.assert_close(logits.grad, golden['ce_grad'])
    features = leaf(golden['student_features'])
    seen = matching.match_q @ golden['teacher_features']
    found = kernel_alignment(features, seen, matching.weight_q)
    torch.testing.assert_close(found.losses[1:], golden['kernel_loss_per_pair'])
    torch.testing.assert_close(found.mean(), golden['kernel_loss'])
    found.mean().backward()
    torch.testing.assert_close(features.grad, golden['kernel_grad'])


def test_both_forms_of_kernel_alignment_are_one():
    x, y = torch.randn(2, 5, 30, 6, dtype=torch.float64)  # more tokens than dimensions
    weights = torch.rand(5, 30, dtype=torch.float64)
    share = weights / weights.sum(1, keepdim=True)
    expected = []
    for a, b, p in zip(x, y, share):
        centring = torch.eye(30) - p  # I - 1 pᵀ
        of_a, of_b = (centring @ z @ z.T @ centring.T for z in (a, b))

        def product(left, right, p=p):
            return (p[:, None] * p * left * right).sum()
        expected.append(1 - product(of_a, of_b)
                        / (product(of_a, of_a) * product(of_b, of_b)).sqrt())
    torch.testing.assert_close(kernel_alignment(x, y, weights).losses, torch.stack(expected))


def test_blank_tiles_leave_kernel_alignment_in_bounds():
    for x in torch.ones(2, 9, 4), torch.zeros(2, 9, 4), 1 + 1e-7 * torch.randn(2, 9, 4):
        x = leaf(x)
        loss = kernel_alignment(x, torch.randn(2, 9, 4)).mean()
        loss.backward()
        assert loss.isfinite() and x.grad.isfinite().all() and x.grad.abs().max() < 1e3


def test_losses_are_taken_in_float32_under_autocast():
    targets = torch.randn(2, 4, 8).softmax(-1)
    logits = torch.randn(3, 4, 8)
    tokens = torch.randn(2, 4, 9, 6)
    found = []
    for enabled in True, False:
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            found.append([dino_loss(targets, logits), soft_cross_entropy(targets, logits[:2]),
                          koleo(logits[0]), kernel_density(logits[0]), gram_anchoring(*tokens),
                          kernel_alignment(*tokens).mean(), Centre(8)(logits, 0.1),
                          sinkhorn_knopp(logits[0], 0.1)])
    for half, full in zip(*found):
        assert half.dtype == torch.float32 and half.equal(full)


# ---- masks ----

def test_masks_are_distributed_as_published():
    golden = {key: value.numpy() for key, value in load('masks').items()}
    generator = np.random.default_rng(0)
    for exact, name in ((False, 'dinov2'), (True, 'dinov3')):
        counts, frequency = [], np.zeros((16, 16))
        for requested, theirs in zip(golden['requested'], golden[f'{name}_counts']):
            masks = [block_mask((16, 16), int(requested), generator, exact) for _ in range(120)]
            ours = np.array([mask.sum() for mask in masks])
            assert ours.max() <= requested
            assert abs(ours.mean() - theirs.mean()) < 0.5 + 0.01 * requested
            if exact:
                assert (ours == requested).all() and (theirs == requested).all()
            counts.append(len(masks))
            frequency += np.sum(masks, 0)
        frequency /= sum(counts)
        theirs = golden[f'{name}_frequency']
        assert np.corrcoef(frequency.ravel(), theirs.ravel())[0, 1] > 0.9
        assert abs(frequency.mean() - theirs.mean()) < 0.02
        corners, centre = frequency[[0, 0, -1, -1], [0, -1, 0, -1]].mean(), frequency[7:9, 7:9]
        assert corners < 0.15 < 0.35 < centre.mean()


@settings(max_examples=40)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 40), st.booleans())
def test_any_grid_can_be_masked(height, width, count, exact):
    count = min(count, height * width)
    mask = block_mask((height, width), count, np.random.default_rng(0), exact)
    assert mask.shape == (height, width) and mask.sum() <= count
    assert not exact or mask.sum() == count


def test_half_of_the_crops_are_masked_by_shares_that_fill_their_range():
    found = draw_masks((16, 16), 2, 20, 0, 1, key=(3, 7), exact=True)
    counts = found.mask.sum(1)
    assert found.mask.shape == (40, 256) and (counts > 0).sum() == 20
    ends = np.floor(256 * np.linspace(0.1, 0.5, 21)[1:] + 1e-9)
    assert sorted(counts[counts > 0]) == ends.tolist()
    assert not draw_masks((4, 4), 2, 3, 0, 1, key=(0,), share=0.).index.size
    assert (draw_masks((4, 4), 2, 3, 0, 1, key=(0,), share=1.).mask.sum(1) > 0).all()


def test_masks_depend_on_key_and_place_but_on_no_rank():
    whole = draw_masks((6, 5), 2, 8, 0, 1, key=(1, 2)).mask.reshape(2, 8, 30)
    parts = [draw_masks((6, 5), 2, 4, rank, 2, key=(1, 2)).mask.reshape(2, 4, 30)
             for rank in range(2)]
    assert np.array_equal(np.concatenate(parts, 1), whole)
    other = draw_masks((6, 5), 2, 8, 0, 1, key=(1, 3)).mask.reshape(2, 8, 30)
    assert not np.array_equal(other, whole)
    assert math.isclose(MaskedPatches.of(whole.reshape(16, 30)).weight.sum(),
                        (whole.sum(2) > 0).sum(), rel_tol=1e-5)
