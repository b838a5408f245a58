"""Random numbers of a step follow from seed, rank and step alone."""

import itertools

import torch

from openselfsup.training.seeding import seed_step


def drawn_after(*key):
    seed_step(*key)
    return torch.rand(4)


def test_steps_repeat_their_random_numbers():
    torch.rand(7)  # what happened before does not matter
    assert drawn_after(3, 1, 20).equal(drawn_after(3, 1, 20))


def test_seed_rank_and_step_all_matter():
    rows = [drawn_after(*key) for key in ((3, 1, 20), (4, 1, 20), (3, 2, 20), (3, 1, 21))]
    assert not any(a.equal(b) for a, b in itertools.combinations(rows, 2))
