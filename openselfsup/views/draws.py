"""Random numbers of a batch of views, of which each view's depend on nothing but its own key."""

import math
from typing import Union

import numpy as np
import torch
from torch import Generator, Tensor

AHEAD = 64  # numbers of each view that are made at once: a few calls for most recipes
_WEYL = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


class Draws:
    """A source of random numbers for B views at once.

    The n-th number of a view is a hash of its key and n (SplitMix64: Steele, Lea & Flood 2014).
    So a view's numbers are the same in whatever batch it is drawn, and those of a batch cost a
    few operations. One after the other, the methods draw further numbers.

    Args:
        keys: one for each view, uint64 (B,).
    """

    def __init__(self, keys: np.ndarray):
        self.keys, self._drawn = keys, 0
        self._first, self._made = 0, np.empty((len(keys), 0), np.uint64)

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def at(cls, *entropy: int, positions: np.ndarray) -> 'Draws':
        """Return the draws at some positions of a sequence.

        Args:
            entropy: whole numbers, at least 0, that name the sequence, such as seed and epoch.
            positions: places in it, int64 (B,).
        """
        key = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        return cls(_hashed(key, positions.astype(np.uint64)))

    @classmethod
    def of(cls, source: Union[Generator, 'Draws'], count: int) -> 'Draws':
        """Return draws as they are; of a generator of torch, draw keys for ``count`` views."""
        if isinstance(source, Draws):
            return source
        keys = torch.randint(2 ** 63 - 1, (count,), generator=source)
        return cls(keys.numpy().astype(np.uint64))

    def of_view(self, number: int) -> 'Draws':
        """Return fresh draws for view ``number`` of the tiles that these are of."""
        return Draws(_hashed(self.keys, np.array([number], np.uint64)))

    @staticmethod
    def joined(parts: list['Draws']) -> 'Draws':
        """Return fresh draws for the views of all parts, one after the other."""
        return Draws(np.concatenate([part.keys for part in parts]))

    def rand(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return uniform numbers from [0, 1), (B, *shape).

        Args:
            shape: of each view's numbers.
            dtype: float32, whose numbers are multiples of 2**-24, or float64, of 2**-53.
        """
        single = dtype == torch.float32
        digits = 24 if single else 53  # of the mantissa
        bits = self._next(math.prod(shape)) >> np.uint64(64 - digits)
        values = bits.astype(np.float32 if single else np.float64)
        values *= 0.5 ** digits
        return torch.from_numpy(values).view(len(self), *shape)

    def _next(self, count: int) -> np.ndarray:
        """Return each view's next numbers of 64 bits, uint64 (B, count)."""
        start = self._drawn - self._first
        if start + count > self._made.shape[1]:
            self._first, start = self._drawn, 0
            numbers = np.arange(self._drawn, self._drawn + max(count, AHEAD), dtype=np.uint64)
            self._made = _hashed(self.keys[:, None], numbers)
        self._drawn += count
        return self._made[:, start:start + count]

    def randint(self, high: int) -> Tensor:
        """Return whole numbers from [0, high), int64 (B,).

        Args:
            high: at least 1, at most 2**53, all of whose whole numbers float64 holds.
        """
        return (self.rand(dtype=torch.float64) * high).long()

    def randn(self, *shape: int) -> Tensor:
        """Return normal numbers, float32 (B, *shape), two of each hash (Box & Muller 1958)."""
        count = math.prod(shape)
        bits = self._next(-(-count // 2))
        squared, angle = (torch.from_numpy((part >> np.uint64(40)).astype(np.float32)) * 0.5 ** 24
                          for part in (bits, bits << np.uint64(24)))
        radius = torch.log1p(-squared).mul_(-2).sqrt_()
        angle *= 2 * math.pi
        pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
        return pairs[:, :count].reshape(len(self), *shape)

    def choice(self, weights: Tensor) -> Tensor:
        """Return indices drawn in proportion to ``weights`` (n,), not all 0: int64 (B,)."""
        bounds = weights.double().cumsum(0)
        return torch.searchsorted(bounds, self.rand(dtype=torch.float64) * bounds[-1], right=True)


def _hashed(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return one 64-bit hash for each pair of a key and a number."""
    z = keys + (numbers + np.uint64(1)) * _WEYL
    shifted = np.empty_like(z)
    for shift, factor in zip(_SHIFTS, _FACTORS):
        z ^= np.right_shift(z, shift, out=shifted)
        z *= factor
    z ^= np.right_shift(z, _SHIFTS[-1], out=shifted)
    return z
