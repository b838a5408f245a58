"""Two processes with 4 tiles each compute what one process computes with 8."""

import pytest
import ranks
import torch
import torch.multiprocessing as mp
from methods import CASES


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    mp.spawn(ranks.run, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f'rank{rank}.pt', weights_only=True) for rank in range(2)]


def assert_as_one_process(case, theirs):
    """See that both ranks found what one process finds."""
    exact = 5e-9 if case == 'DINOv2, blocks' else 1e-10  # positions are resized in float32
    steps, state = ranks.two_steps(case, 0, 1)
    for their_steps, their_state in theirs:
        for (losses, gradients), (their_losses, their_gradients) in zip(steps, their_steps):
            torch.testing.assert_close(their_losses, losses, rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(their_gradients, gradients, rtol=1e-7, atol=exact)
        torch.testing.assert_close(their_state, state, rtol=1e-7, atol=exact)


@pytest.mark.parametrize('case', ranks.SHARDED)
def test_parameters_that_are_shared_out_take_the_same_steps(found, case):
    assert_as_one_process(case, [rank['sharded'][case] for rank in found])


def test_methods_that_share_out_are_those_meant():
    assert {CASES[case]['type'] for case in ranks.SHARDED} == {
        'BYOL', 'VICRegL', 'PLMVICRegL', 'DINO', 'iBOT', 'DINOv2'}


@pytest.mark.parametrize('case', CASES)
def test_losses_gradients_and_state_are_those_of_one_process(found, case):
    assert_as_one_process(case, [rank['cases'][case] for rank in found])


def test_ranks_share_one_shuffle(found):
    orders = [found[rank]['order'] for rank in range(2)]
    assert sorted(orders[0] + orders[1]) == list(range(2 * ranks.ROWS))
    assert not set(orders[0]) == set(range(ranks.ROWS))  # images changed ranks


def test_one_infinite_gradient_makes_all_ranks_skip(found):
    for rank in range(2):
        (good, good_size), (bad, bad_size) = found[rank]['skipped']
        assert good == 0 and good_size > 0
        assert bad == 1 and bad_size == 0
    assert found[0]['skipped'] == found[1]['skipped']


def test_ranks_have_one_earlier_teacher(found):
    ours, theirs = (found[rank]['teacher'] for rank in range(2))
    assert any(name.endswith('running_mean') and value.any() for name, value in ours.items())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_gradients_cross_between_ranks_once_a_step(found):
    sent, gradients = found[0]['synchronised']
    assert sent == gradients > 0
