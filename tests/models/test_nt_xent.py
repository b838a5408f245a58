import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.models.losses import nt_xent, nt_xent_of_pairs

module = importlib.import_module('openselfsup.models.losses.nt_xent')
GOLDEN = Path(__file__).parents[1] / 'data/golden'


def oracle(first, second, temperature):
    """Cross-entropy of the full matrix of similarities with its diagonal masked."""
    z, rows = torch.cat([first, second]), len(first)
    logits = (z @ z.T / temperature).masked_fill(torch.eye(2 * rows, dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(2 * rows).roll(rows))


def unit(*shape, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, dtype=dtype), dim=-1)


def loss_and_gradients(function, *views, **arguments):
    views = [view.clone().requires_grad_() for view in views]
    loss = function(*views, 0.2, **arguments)
    return loss, *torch.autograd.grad(loss, views)


@pytest.fixture(autouse=True)
def in_several_parts(monkeypatch):
    monkeypatch.setattr(module, '_CHUNK_ELEMENTS', 40)


def test_golden():
    golden = np.load(GOLDEN / 'ca2cl_parts.npz')
    z1, z2 = (F.normalize(torch.from_numpy(golden[name]), dim=1) for name in ('z1', 'z2'))
    loss = nt_xent(z1, z2, float(golden['temperature']))
    np.testing.assert_allclose(loss, golden['loss_instance'], rtol=1e-5, atol=1e-6)


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(1, 10))
def test_equals_the_full_matrix_for_any_batch(rows, dim):
    views = unit(rows, dim), unit(rows, dim)
    for ours, theirs in zip(loss_and_gradients(nt_xent, *views),
                            loss_and_gradients(oracle, *views)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_gradcheck():
    views = [unit(5, 3).requires_grad_() for _ in range(2)]
    torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3), views)


def test_the_mean_of_ranks_is_the_loss_of_one_process():
    first, second = (unit(12, 4).requires_grad_() for _ in range(2))
    total = sum(nt_xent(first[i:i + 3], second[i:i + 3], 0.2, (first, second), i)
                for i in range(0, 12, 3)) / 4
    gradients = torch.autograd.grad(total, [first, second])
    for ours, theirs in zip((total, *gradients), loss_and_gradients(nt_xent, first, second)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_float32_under_autocast():
    views = unit(40, 16, dtype=torch.float32), unit(40, 16, dtype=torch.float32)
    exact = loss_and_gradients(nt_xent, *views)
    with torch.autocast('cpu', torch.bfloat16):
        half = loss_and_gradients(nt_xent, *views)
    assert all(value.dtype == torch.float32 for value in half)
    torch.testing.assert_close(half[0], exact[0], rtol=2e-3, atol=0)
    assert not half[0].equal(exact[0])  # the product was in bfloat16
    for ours, theirs in zip(half[1:], exact[1:]):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


def test_backward_keeps_nothing_of_the_size_of_the_similarities():
    saved, first = [], unit(64, 4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.numel()), x)[1],
                                                  lambda x: x):
        nt_xent(first, unit(64, 4), 0.2)
    assert saved and max(saved) <= 128 * 4


@pytest.mark.parametrize('arguments, words', [
    ((unit(4, 3), unit(5, 3), .2), 'one shape'), ((unit(0, 3), unit(0, 3), .2), 'B >= 1'),
    ((unit(4, 3), unit(4, 3), 0.), 'temperature'),
    ((unit(4, 3), unit(4, 3), .2, (unit(6, 3), unit(6, 3)), 3), '4 rows from 3 on are not part'),
    ((unit(4, 3), unit(4, 3), .2, (unit(8, 2), unit(8, 2))), 'not part of')])
def test_impossible_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        nt_xent(*arguments)


def of_pairs_oracle(anchors, positives, others, own, temperature):
    """Cross-entropy of the full matrix, the positive in front and an anchor's own rows masked."""
    logits = (anchors @ others.T).scatter(1, own, -torch.inf)
    logits = torch.cat([(anchors * positives).sum(1, keepdim=True), logits], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64), reduction='none')


@settings(max_examples=25)
@given(st.integers(0, 30), st.integers(1, 6), st.integers(1, 3), st.integers(1, 10))
def test_pairs_equal_the_full_matrix_for_any_numbers(rows, images, owned, dim):
    images += 1
    owner = torch.randint(images, (rows, 1))
    own = owned * owner + torch.arange(owned)
    arguments = [unit(rows, dim).requires_grad_(), unit(rows, dim).requires_grad_(),
                 unit(owned * images, dim).requires_grad_()]
    found = []
    for function in nt_xent_of_pairs, of_pairs_oracle:
        losses = function(*arguments, own, 0.2)
        weights = torch.arange(1., rows + 1, dtype=losses.dtype)
        found.append((losses, *torch.autograd.grad((losses * weights).sum(), arguments)))
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_backward_of_pairs_keeps_nothing_of_the_size_of_the_similarities():
    saved, anchors = [], unit(64, 4).requires_grad_()
    own = torch.arange(64)[:, None] % 32
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.numel()), x)[1],
                                                  lambda x: x):
        nt_xent_of_pairs(anchors, unit(64, 4), unit(32, 4), own, 0.2).sum()
    assert saved and max(saved) <= 64 * 4


@pytest.mark.parametrize('arguments, words', [
    ((unit(4, 3), unit(5, 3), unit(6, 3), torch.zeros(4, 2)), 'one shape'),
    ((unit(4, 3), unit(4, 3), unit(6, 2), torch.zeros(4, 2)), 'one shape'),
    ((unit(4, 3), unit(4, 3), unit(6, 3), torch.zeros(3, 2)), 'one shape'),
    ((unit(4, 3), unit(4, 3), unit(2, 3), torch.zeros(4, 2)), 'at least one other image')])
def test_impossible_pairs(arguments, words):
    with pytest.raises(ValueError, match=words):
        nt_xent_of_pairs(*arguments[:3], arguments[3].long(), 0.2)


def test_pairs_want_a_temperature():
    with pytest.raises(ValueError, match='temperature'):
        nt_xent_of_pairs(unit(4, 3), unit(4, 3), unit(6, 3), torch.zeros(4, 1).long(), 0.)
