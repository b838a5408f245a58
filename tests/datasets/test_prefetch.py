"""What is made ahead comes in order, raises where it is due, and leaves no thread."""

import threading

import pytest

from openselfsup.datasets.prefetch import prefetch


def names() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith('made_by_us')}


def test_items_come_in_order_and_no_more_than_asked_for_are_under_way():
    begun, waits = [], []
    items = prefetch(lambda i: begun.append(i) or -i, range(9), 2, 3, 'made_by_us',
                     waited=waits.append)
    assert not begun and next(items) == 0  # nothing is made before the first is asked for
    assert max(begun) <= 2 and names()
    assert list(items) == [-i for i in range(1, 9)] and len(waits) == 9
    assert not names()


def test_an_error_is_raised_where_its_item_is_due():
    def make(i: int) -> int:
        if i == 2:
            raise KeyError(i)
        return i
    items = prefetch(make, range(5), 2, 4, 'made_by_us')
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(KeyError):
        next(items)
    assert not names()


def test_threads_end_with_an_iterator_that_is_closed():
    items = prefetch(lambda i: i, iter(range(10 ** 9)), 1, 2, 'made_by_us')
    next(items)
    items.close()
    assert not names()
