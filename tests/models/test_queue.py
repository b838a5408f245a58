from collections import deque

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openselfsup.models.memories import Queue


def test_starts_with_random_directions_and_nothing_filled():
    queue = Queue(50, 8)
    torch.testing.assert_close(queue.vectors.norm(dim=1), torch.ones(50))
    assert queue.vectors.unique(dim=0).shape[0] == 50
    assert queue.pointer.tolist() == queue.filled.tolist() == [0]


@settings(max_examples=40)
@given(st.integers(1, 9), st.lists(st.integers(0, 25), max_size=8))
def test_holds_the_last_keys_whatever_the_batch_sizes(length, batches):
    queue, held, count = Queue(length, 1), deque(maxlen=length), 0
    for batch in batches:
        keys = torch.arange(count, count + batch).float()[:, None]
        queue.enqueue(keys)
        held.extend(range(count, count + batch))
        count += batch
        assert queue.pointer.item() == count % length
        assert queue.filled.item() == len(held)
        assert queue.filled_fraction() == len(held) / length
        assert queue.in_order()[:, 0].int().tolist() == list(held)  # no random slot among them
        assert queue.batch == batch


@settings(max_examples=40)
@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 25), st.integers(0, 3)), max_size=8))
def test_of_some_keys_the_first_are_taken(length, batches):
    queue, expected = Queue(length, 1), Queue(length, 1)
    expected.load_state_dict(queue.state_dict())
    for batch, more in batches:
        keys = torch.randn(batch + more, 1)
        queue.enqueue_first(keys if batch + more else torch.zeros(1, 1), torch.tensor(batch))
        expected.enqueue(keys[:batch])
        for name, value in queue.state_dict().items():
            assert value.equal(expected.state_dict()[name]), name
        assert queue.batch == 0  # the host does not know


def test_keys_are_taken_without_gradient():
    queue = Queue(4, 2)
    queue.enqueue(torch.ones(3, 2, requires_grad=True) * 2)
    assert not queue.vectors.requires_grad
