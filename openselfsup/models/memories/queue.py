"""The queue of keys that MoCo and its descendants contrast with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """First in, first out memory of L2-normalised vectors (MoCo, arXiv 1911.05722, sec. 3.2).

    Vectors are rows: enqueueing writes contiguous memory, and the queue serves as keys of an
    attention as it is. Slots hold random directions until real keys arrive.

    Args:
        length: number of slots K.
        dim: size D of a vector.

    Attributes:
        vectors: buffer of shape (K, D).
        pointer: int64 buffer of shape (1,), the slot that the next key takes.
        filled: int64 buffer of shape (1,), the number of slots that hold real keys.
        batch: rows of the last keys; 0 before there are any, or where only the device knows.
    """

    vectors: Tensor
    pointer: Tensor
    filled: Tensor
    batch: int = 0

    def __init__(self, length: int, dim: int):
        super().__init__()
        self.register_buffer('vectors', F.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer('pointer', torch.zeros(1, dtype=torch.int64))
        self.register_buffer('filled', torch.zeros(1, dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest vectors by ``keys`` of shape (B, D), any B; the last K stay."""
        length, self.batch = len(self.vectors), len(keys)
        skipped = max(len(keys) - length, 0)
        steps = torch.arange(skipped, len(keys), device=self.pointer.device)
        slots = (self.pointer + steps) % length
        self.vectors.index_copy_(0, slots, keys[skipped:].to(self.vectors.dtype))
        self.pointer.add_(len(keys)).remainder_(length)
        self.filled.add_(len(keys)).clamp_(max=length)

    @torch.no_grad()
    def enqueue_first(self, keys: Tensor, count: Tensor) -> None:
        """Enqueue as many of ``keys`` (N, D) as ``count`` says, an int64 scalar on their device."""
        length, self.batch = len(self.vectors), 0
        slots = torch.arange(length, device=self.pointer.device)
        offset = (slots - self.pointer) % length  # keys i, i + K, i + 2K, ... meet in one slot
        last = offset + (count - 1 - offset).div(length, rounding_mode='floor') * length
        rows = keys.to(self.vectors.dtype).index_select(0, last.clamp_min(0))
        self.vectors.copy_(torch.where((last >= 0)[:, None], rows, self.vectors))
        self.pointer.add_(count).remainder_(length)
        self.filled.add_(count).clamp_(max=length)

    def filled_fraction(self) -> Tensor:
        """Return the fraction of slots that hold real keys, a scalar tensor."""
        return self.filled[0] / len(self.vectors)

    def in_order(self) -> Tensor:
        """Return the real keys, the oldest first, (filled, D); the host waits for the device."""
        return self.vectors.roll(-int(self.pointer), 0)[len(self.vectors) - int(self.filled):]
