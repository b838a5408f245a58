import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from openselfsup.models.losses import info_nce

module = importlib.import_module('openselfsup.models.losses.info_nce')
GOLDEN = Path(__file__).parents[1] / 'data/golden'


def oracle(query, positive, negatives, temperature, weights=None, reduction='mean'):
    """Concatenate all logits and take the cross-entropy of class 0, as published."""
    logits = torch.cat([(query * positive).sum(1, keepdim=True), query @ negatives.T], 1)
    target = torch.zeros(len(query), dtype=torch.long)
    losses = F.cross_entropy(logits / temperature, target, reduction='none')
    weights = torch.ones_like(losses) if weights is None else weights
    total = (weights * losses).sum()
    return {'mean': total / len(losses), 'weighted_mean': total / weights.sum(),
            'none': weights * losses}[reduction]


def unit(*shape, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, dtype=dtype), dim=-1)


def loss_and_gradients(function, query, positive, *arguments):
    query, positive = query.clone().requires_grad_(), positive.clone().requires_grad_()
    loss = function(query, positive, *arguments)
    return loss, *torch.autograd.grad(loss.sum(), [query, positive])


@pytest.fixture(params=['fused', 'split', 'chunked'])
def path(request, monkeypatch):
    if request.param == 'split':  # the keys in heads, merged again, as on a GPU
        monkeypatch.setattr(module, '_heads', lambda query, keys: 2 if len(keys) % 2 == 0 else 1)
    if request.param == 'chunked':  # as where torch has no fused operator
        monkeypatch.setattr(module, '_fused_operator', lambda query: None)
        monkeypatch.setattr(module, '_CHUNK_ELEMENTS', 64)
    return request.param


def test_golden_heads(path):
    golden = np.load(GOLDEN / 'contrastive_heads.npz')
    # Similarities to chosen keys: let the keys be unit vectors and the queries the similarities.
    query = torch.from_numpy(np.concatenate([golden['pos'], golden['neg']], 1))
    keys = torch.eye(query.shape[1])
    arguments = query, keys[:1].expand_as(query), keys[1:], float(golden['temperature'])
    weights = torch.from_numpy(golden['weights'])
    for loss, name in ((info_nce(*arguments, weights), 'weighted'),
                       (info_nce(*arguments), 'unweighted')):
        np.testing.assert_allclose(loss, golden[name], rtol=1e-5, atol=1e-6)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 20), st.floats(0.02, 2),
       st.sampled_from(['mean', 'weighted_mean', 'none']), st.booleans(),
       st.sampled_from([torch.float32, torch.float64]))
def test_equals_cross_entropy_of_all_logits(rows, keys, dim, temperature, reduction, weighted,
                                            dtype):
    query, positive, negatives = unit(rows, dim), unit(rows, dim), unit(keys, dim)
    weights = torch.rand(rows, dtype=torch.float64) + 0.01 if weighted else None
    expected = loss_and_gradients(oracle, query, positive, negatives, temperature, weights,
                                  reduction)
    actual = loss_and_gradients(info_nce, query.to(dtype), positive.to(dtype),
                                negatives.to(dtype), temperature,
                                weights if weights is None else weights.to(dtype), reduction)
    tolerance = dict(rtol=1e-4, atol=1e-5) if dtype == torch.float32 else dict(rtol=1e-7, atol=1e-9)
    for ours, theirs in zip(actual, expected):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, **tolerance)


def test_every_path_equals_cross_entropy(path):
    arguments = unit(19, 8), unit(19, 8), unit(30, 8), 0.2, torch.rand(19, dtype=torch.float64)
    for ours, theirs in zip(loss_and_gradients(info_nce, *arguments),
                            loss_and_gradients(oracle, *arguments)):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_gradcheck(path):
    query, positive = unit(5, 4).requires_grad_(), unit(5, 4).requires_grad_()
    negatives, weights = unit(6, 4), torch.tensor([1, 0, .3, .7, 1], dtype=torch.float64)
    for reduction in module.REDUCTIONS:
        torch.autograd.gradcheck(
            lambda q, p, how=reduction: info_nce(q, p, negatives, 0.3, weights, how),
            (query, positive))


def test_rows_of_weight_zero_have_no_gradient(path):
    query, positive, weights = unit(8, 4), unit(8, 4), torch.ones(8, dtype=torch.float64)
    query[3] = 0  # even a cell that nothing overlaps, whose vector is zero
    weights[2:5] = 0
    _, to_query, to_positive = loss_and_gradients(info_nce, query, positive, unit(9, 4), 0.2,
                                                  weights)
    for gradient in (to_query, to_positive):
        assert not gradient[2:5].any()
        assert gradient[:2].all() and gradient[5:].all()


def test_weights_that_are_all_zero_give_a_loss_of_zero():
    loss, *gradients = loss_and_gradients(info_nce, unit(4, 3), unit(4, 3), unit(5, 3), 0.2,
                                          torch.zeros(4), 'weighted_mean')
    assert loss == 0 and not any(gradient.any() for gradient in gradients)


def test_negatives_get_no_gradient_and_may_change_before_backward():
    query, positive, negatives = unit(4, 3).requires_grad_(), unit(4, 3), unit(5, 3)
    before = torch.autograd.grad(info_nce(query, positive, negatives, 0.2), query)[0]
    leaf = negatives.clone().requires_grad_()
    loss = info_nce(query, positive, leaf, 0.2)
    leaf.data.copy_(unit(5, 3))
    loss.backward()
    assert leaf.grad is None
    torch.testing.assert_close(query.grad, before)


def test_sharp_temperatures_stay_finite(path):
    query, negatives = unit(6, 4, dtype=torch.float32), unit(7, 4, dtype=torch.float32)
    arguments = query, -query, negatives, 1e-3
    ours, *gradients = loss_and_gradients(info_nce, *arguments)
    torch.testing.assert_close(ours, oracle(*arguments))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_under_autocast_only_the_product_leaves_float32(monkeypatch):
    query, positive = unit(64, 16, dtype=torch.float32), unit(64, 16, dtype=torch.float32)
    negatives, seen = unit(96, 16, dtype=torch.float32), []
    attend = module.attend
    monkeypatch.setattr(module, 'attend', lambda q, k: (
        seen.append((q.dtype, k.dtype)), attend(q, k))[1])
    exact = loss_and_gradients(info_nce, query, positive, negatives, 0.2)
    with torch.autocast('cpu', torch.bfloat16):
        # a neck's projection arrives in bfloat16, a positive from normalisation in float32
        loss, to_query, to_positive = loss_and_gradients(info_nce, query, positive, negatives, 0.2)
        assert info_nce(query.bfloat16(), positive, negatives, 0.2).dtype == torch.float32
    assert seen == [(torch.float32,) * 2, (torch.bfloat16,) * 2, (torch.bfloat16,) * 2]
    assert loss.dtype == to_query.dtype == to_positive.dtype == torch.float32
    torch.testing.assert_close(loss, exact[0], rtol=1e-3, atol=0)
    for ours, theirs in zip((to_query, to_positive), exact[1:]):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


def test_backward_keeps_nothing_of_the_size_of_the_logits():
    saved = []
    query = unit(50, 4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.numel()), x)[1],
                                                  lambda x: x):
        info_nce(query, unit(50, 4), unit(300, 4), 0.2, torch.rand(50))
    assert saved and max(saved) <= query.numel()


@pytest.mark.parametrize('weights', [None, torch.ones(0)])
@pytest.mark.parametrize('reduction', module.REDUCTIONS)
@pytest.mark.parametrize('leave_out', [True, False])
def test_no_rows_at_all_are_a_loss_of_zero_with_gradient_zero(path, weights, reduction, leave_out,
                                                             monkeypatch):
    monkeypatch.setattr(module, '_can_leave_rows_out', lambda query: leave_out)
    # The rows are selected from a real projection: its gradient has to be 0, not missing.
    projection = unit(3, 4).requires_grad_()
    query, positive = projection[:0], projection[3:]
    loss = info_nce(query, positive, unit(5, 4), 0.2, weights, reduction)
    assert loss.shape == ((0,) if reduction == 'none' else ()) and loss.sum() == 0
    gradient, = torch.autograd.grad(loss.sum(), projection)
    assert torch.equal(gradient, torch.zeros(3, 4, dtype=torch.float64))


def clustered(rows, centres):
    return F.normalize(centres[torch.randint(len(centres), (rows,))]
                       + 0.03 * torch.randn(rows, centres.shape[1], dtype=centres.dtype), dim=1)


@pytest.mark.parametrize('temperature', [0.2, 0.07, 0.03])
@pytest.mark.parametrize('queue', ['random', 'clustered'])
def test_the_shifted_form_is_as_exact_as_the_fused_one(queue, temperature, monkeypatch):
    monkeypatch.setattr(module, '_shifting_pays', lambda query: False)  # elsewhere than here
    if queue == 'random':
        query, keys = unit(300, 128), unit(4096, 128)
    else:
        centres = unit(20, 128)
        query, keys = clustered(300, centres), clustered(4096, centres)
    expected, expected_lse = module.chunked_attend(query / temperature, keys)
    errors = {}
    for form in (module.attend, module.shifted_attend):
        output, lse = form((query / temperature).bfloat16(), keys.bfloat16())
        assert lse.dtype == torch.float32
        errors[form] = (float((output - expected).norm() / expected.norm()),
                        float((lse - expected_lse).square().mean().sqrt()))
    for fused, shifted in zip(errors[module.attend], errors[module.shifted_attend]):
        assert shifted < max(1.3 * fused, 1e-3) and fused < 0.02


@settings(max_examples=40)
@given(rows=st.integers(0, 40), keys=st.integers(1, 700), dim=st.integers(1, 40),
       chunk=st.integers(1, 5000), seed=st.integers(0, 999))
def test_the_shifted_form_takes_all_sizes(rows, keys, dim, chunk, seed):
    torch.manual_seed(seed)
    query, negatives = 5 * unit(rows, dim), unit(keys, dim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, '_CHUNK_ELEMENTS', chunk)
        output, lse = module.shifted_attend(query.bfloat16(), negatives.bfloat16())
    expected, expected_lse = module.chunked_attend(query, negatives)
    torch.testing.assert_close(output.double(), expected, rtol=0.05, atol=0.03)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=0, atol=0.03)


def test_the_shifted_form_is_for_logits_that_cannot_overflow(monkeypatch):
    monkeypatch.setattr(module, '_shifting_pays', lambda query: True)
    forms, shifted = [], module.shifted_attend
    monkeypatch.setattr(module, 'shifted_attend',
                        lambda *both: (forms.append('shifted'), shifted(*both))[1])
    query, keys = unit(9, 16).bfloat16(), unit(20000, 16).bfloat16()
    for scale in (5, 28, 32, 1000):
        # The sampled keys are far from the query, all others as close as can be.
        keys[:] = query[0]
        keys[::40] = -query[0]
        forms.append(scale)
        scaled = scale * query
        output, lse = module.attend(scaled, keys)
        assert output.isfinite().all() and lse.isfinite().all()
        expected, expected_lse = module.chunked_attend(scaled.double(), keys.double())
        torch.testing.assert_close(lse.double(), expected_lse, rtol=0.01, atol=0.03)
    assert forms == [5, 'shifted', 28, 'shifted', 32, 1000]


def test_bf16_under_autocast_in_the_shifted_form(monkeypatch):
    monkeypatch.setattr(module, '_shifting_pays',
                        lambda query: query.dtype == torch.bfloat16)
    arguments = (unit(64, 16, dtype=torch.float32), unit(64, 16, dtype=torch.float32),
                 unit(96, 16, dtype=torch.float32), 0.2, torch.rand(64).round())
    exact = loss_and_gradients(info_nce, *arguments)
    with torch.autocast('cpu', torch.bfloat16):
        found = loss_and_gradients(info_nce, *arguments)
    for ours, theirs in zip(found, exact):
        assert ours.dtype == torch.float32 and (ours - theirs).norm() < 0.01 * theirs.norm()


@pytest.mark.parametrize('rows, keys, dim', [(64, 16384, 128), (6272, 16384, 128), (7, 333, 13)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_operators_of_a_gpu_take_what_they_are_given(rows, keys, dim, dtype, monkeypatch):
    """Without a GPU only shapes and dtypes can be checked: fake tensors run the operators' own."""
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device=None: (9, 0))
    with FakeTensorMode():
        query = torch.empty(rows, dim, device='cuda', dtype=dtype)
        try:
            output, lse = module.attend(query, torch.empty(keys, dim, device='cuda', dtype=dtype))
        except RuntimeError as error:  # as torch 2.9 does
            if 'driver' not in str(error):
                raise
            pytest.skip('fake tensors of this torch ask the driver of a GPU')
        assert (module._fused_operator(query) is None) == (dtype == torch.float64)
    assert output.shape == (rows, dim) and output.dtype == dtype
    assert lse.shape == (rows,) and lse.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('rows, keys, dim', [(64, 16384, 128), (6272, 16384, 128), (7, 333, 13)])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-3), (torch.bfloat16, 1e-2),
                                              (torch.float16, 1e-2)])
def test_operators_of_a_gpu_compute_the_same(rows, keys, dim, dtype, tolerance):
    query, negatives = 5 * unit(rows, dim).cuda(), unit(keys, dim).cuda()
    output, lse = module.attend(query.to(dtype), negatives.to(dtype))
    expected, expected_lse = module.chunked_attend(query, negatives)
    assert (output.double() - expected).norm() < tolerance * expected.norm()
    torch.testing.assert_close(lse.double(), expected_lse, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('arguments, words', [
    ((unit(4, 3), unit(5, 3), unit(6, 3), 0.2), 'one shape'),
    ((unit(4, 3), unit(4, 3), unit(6, 2), 0.2), r'negatives must have shape \(K, 3\)'),
    ((unit(4, 3), unit(4, 3), unit(0, 3), 0.2), 'K >= 1'),
    ((unit(4, 3), unit(4, 3), unit(6, 3), 0.), 'temperature'),
    ((unit(4, 3), unit(4, 3), unit(6, 3), 0.2, torch.ones(3)), r'weights must have shape \(4,\)'),
    ((unit(4, 3), unit(4, 3), unit(6, 3), 0.2, None, 'sum'), 'reduction')])
def test_impossible_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        info_nce(*arguments)
