"""Memory for the images of a batch."""

import math
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, ...]
Allocate = Callable[[Shape], Tensor]  # an uninitialised, contiguous uint8 tensor of a shape

_FREE: dict[int, deque[np.ndarray]] = {}  # blocks of memory by their number of bytes
_SPARE = 8  # of one size


def recycled(shape: Shape) -> Tensor:
    """Return an uninitialised uint8 tensor in the memory of one that nobody holds any more.

    The system clears each page of new memory before it hands it out, which takes longer than
    copying a tile into it.
    """
    free = _FREE.setdefault(math.prod(shape), deque(maxlen=_SPARE))
    try:
        block = free.pop()
    except IndexError:
        block = np.empty(math.prod(shape), np.uint8)
    return lent(block, lambda: free.append(block)).view(shape)


def pinned(shape: Shape) -> Tensor:
    """Return an uninitialised uint8 tensor in page-locked memory, for fast copies to a GPU.

    torch's allocator uses it again once nobody holds it and the copies from it are done.
    """
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True)


def lent(block: np.ndarray, give_back: Callable[[], object]) -> Tensor:
    """Return a tensor in a flat block of memory; when nobody holds it, ``give_back`` is called."""
    borrowed = block.view()  # a new object, which lives as long as tensors need the memory
    weakref.finalize(borrowed, give_back).atexit = False
    return torch.from_numpy(borrowed)
