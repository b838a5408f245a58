"""A view's random numbers depend on its own key only, and are as random as they should be."""

import numpy as np
import torch
from hypothesis import strategies as st
from strategies import given

from openselfsup.views import Draws, ViewRecipe, steps

MANY = np.arange(40_000)
ALL = [dict(type=name, p=0.5) for name in steps.STEPS if name != 'OneOf'] + [
    dict(type='OneOf', steps=[dict(type='MotionBlur'), dict(type='GaussianNoise')])]


@given(seed=st.integers(0, 2 ** 63 - 1), total=st.integers(1, 12), data=st.data())
def test_a_view_is_drawn_alike_in_any_batch(seed, total, data):
    recipe = ViewRecipe((20, 24), ALL)
    chosen = data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=6))
    sizes = torch.tensor([[40 + i, 60 - i] for i in range(total)])
    whole = recipe.draw(sizes, Draws.at(seed, 3, positions=np.arange(total)))
    part = recipe.draw(sizes[chosen], Draws.at(seed, 3, positions=np.array(chosen)))
    for name, values in part.items():
        assert torch.equal(values, whole[name][chosen]), name


def test_seeds_epochs_positions_views_and_numbers_differ():
    sources = [Draws.at(seed, epoch, positions=np.arange(5)).of_view(view)
               for seed in (0, 1) for epoch in (0, 1) for view in (0, 1)]
    values = torch.stack([source.rand(200, dtype=torch.float64) for source in sources])
    assert len(values.unique()) == values.numel()
    again = Draws.at(0, 1, positions=np.array([4])).of_view(1)
    assert torch.equal(again.rand(200, dtype=torch.float64)[0], values[3, 4])


def test_calls_may_be_of_any_size():
    keys = np.array([1, 2], np.uint64)
    whole, parts = Draws(keys).rand(300), Draws(keys)
    assert torch.equal(torch.cat([parts.rand(n) for n in (1, 62, 5, 200, 32)], 1), whole)


def test_parts_are_joined_in_their_order():
    one, two = (Draws.at(seed, positions=np.arange(3)) for seed in (0, 1))
    expected = torch.cat([one.rand(), two.rand()])
    assert torch.equal(Draws.joined([one, two]).rand(), expected)


def test_numbers_are_uniform_and_independent():
    source = Draws.at(0, positions=MANY)
    for dtype in (torch.float32, torch.float64):
        values = source.rand(8, dtype=dtype)
        assert values.dtype == dtype and values.min() >= 0 and values.max() < 1
        counts = torch.histc(values.double(), 64, 0, 1)
        expected = values.numel() / 64
        assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * (2 * 63) ** 0.5
        # Neither numbers of a view nor neighbours in the epoch know of each other.
        correlation = torch.corrcoef(torch.cat([values, values.roll(1, 0)], 1).T.double())
        assert (correlation - torch.eye(16)).abs().max() < 5 / len(MANY) ** 0.5


def test_whole_numbers_choices_and_normal_numbers():
    source = Draws.at(1, positions=MANY)
    shares = torch.bincount(source.randint(4), minlength=4) / len(MANY)
    assert len(shares) == 4 and (shares - 0.25).abs().max() < 0.012
    assert source.randint(1).eq(0).all() and source.randint(2 ** 31).max() > 2 ** 31 * 0.999
    shares = torch.bincount(source.choice(torch.tensor([0., 1., 0., 3.])), minlength=4) / len(MANY)
    assert shares[0] == shares[2] == 0 and abs(shares[1] - 0.25) < 0.012
    normal = source.randn(3, 5)
    assert normal.shape == (len(MANY), 3, 5) and normal.dtype == torch.float32
    flat = normal.flatten(1).double()
    assert flat.mean().abs() < 0.01 and abs(flat.std() - 1) < 0.01
    assert abs(flat.pow(4).mean() - 3) < 0.05 and 4 < flat.abs().max() < 5.8
    assert (torch.corrcoef(flat.T) - torch.eye(15)).abs().max() < 5 / len(MANY) ** 0.5


def test_a_generator_of_torch_gives_other_numbers_each_time():
    generator = torch.Generator().manual_seed(0)
    first, second = (Draws.of(generator, 4).rand() for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(Draws.of(torch.Generator().manual_seed(0), 4).rand(), first)
