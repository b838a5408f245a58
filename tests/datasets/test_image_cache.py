"""Decoded images that are kept: how many, for how long, and what becomes of errors."""

import threading

import numpy as np
import pytest

from openselfsup.datasets import image_cache
from openselfsup.datasets.image_cache import ImageCache
from openselfsup.datasets.tile_error import TileError

SIZE = 32 * 32 * 3


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that are decoded; those whose names begin with an x are damaged."""
    names: list[str] = []

    def read(path: str) -> np.ndarray:
        names.append(path)
        if path.startswith('x'):
            raise TileError('damaged', where=path)
        return np.full((32, 32, 3), ord(path[0]), np.uint8)

    monkeypatch.setattr(image_cache, 'read_tile', read)
    return names


def test_memory_is_bounded_and_the_images_used_last_stay(decoded):
    cache = ImageCache(2 * SIZE)
    for name in 'abacabba':
        assert cache.get(name, SIZE)[0, 0, 0] == ord(name)
        assert cache._bytes == SIZE * len(cache._images) <= 2 * SIZE
    assert ''.join(decoded) == 'abcb'


def test_the_image_used_last_is_kept_however_large(decoded):
    cache = ImageCache(SIZE - 1)
    for name in 'aaabba':
        cache.get(name, SIZE)
    assert ''.join(decoded) == 'aba' and cache._bytes == SIZE


def test_a_damaged_image_is_decoded_once_and_told_each_time(decoded):
    cache = ImageCache(SIZE)
    found = [cache.get('x', SIZE) for _ in range(3)]
    assert all(isinstance(error, TileError) and str(error) == 'x: damaged' for error in found)
    assert decoded == ['x']


def test_any_other_error_reaches_all_who_wait_and_is_not_remembered(decoded, monkeypatch):
    cache, begun, go_on, told = ImageCache(SIZE), threading.Event(), threading.Event(), []
    read = image_cache.read_tile

    def fail(path):
        begun.set()
        go_on.wait(10)
        raise MemoryError

    def ask():
        with pytest.raises(MemoryError):
            cache.get('a', SIZE)
        told.append(True)

    monkeypatch.setattr(image_cache, 'read_tile', fail)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert told == [True, True] and cache._bytes == 0 and not cache._images
    monkeypatch.setattr(image_cache, 'read_tile', read)
    assert cache.get('a', SIZE).shape == (32, 32, 3)
