"""What the numbers in a checkpoint must be for anybody to go on with them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .names import shorten


def refuse_spoilt(content: Any, where: str | None) -> None:
    """Refuse tensors that hold NaN or infinity, or variances below zero.

    A network with one such value answers NaN or nonsense for every image, and the largest of
    several NaN is the first: nonsense then looks like a score.

    Args:
        content: tensors, nested in dicts, lists and tuples in any way.
        where: path of the file they come from.

    Raises:
        UserError: some are spoilt; the first ones are named with how many values.
    """
    found = [f'{name} ({count} of {tensor.numel():,} values)'
             for name, tensor in _tensors(content) if (count := _spoilt_values(name, tensor))]
    if found:
        raise UserError(
            f'{len(found)} tensors hold NaN, infinity or a negative variance: '
            f'{shorten(found, 3)}', where=where,
            expected='a checkpoint from before the training diverged, or an undamaged copy')


def unusable(tensor: Tensor, dtype: torch.dtype) -> str | None:
    """Say why a tensor cannot fill a parameter of ``dtype``; None if it can."""
    if tensor.is_meta:
        return 'without values'
    if tensor.is_quantized or tensor.layout != torch.strided:
        return 'quantised' if tensor.is_quantized else 'sparse'
    if dtype.is_floating_point and not tensor.dtype.is_floating_point:
        return str(tensor.dtype).removeprefix('torch.')
    return None


def mean_and_std(found: Any, where: str) -> dict[str, tuple[float, ...]] | None:
    """Return the ``mean`` and ``std`` that a file says, as tuples; None if there is nothing.

    Args:
        found: a mapping, as it was read.
        where: path of the file.

    Raises:
        UserError: they are not three finite numbers each, or a ``std`` is not above 0.
    """
    if found is None:
        return None
    pair = {key: tuple(found.get(key, ())) if isinstance(found, Mapping)
            and isinstance(found.get(key, ()), (list, tuple)) else () for key in ('mean', 'std')}
    if not all(len(values) == 3 and all(isinstance(v, (int, float)) and math.isfinite(v)
                                        for v in values)
               for values in pair.values()) or min(pair['std']) <= 0:
        raise UserError(f"the normalisation in this file is mean={pair['mean']}, "
                        f"std={pair['std']}", where=where,
                        expected='three finite numbers each, std above 0')
    return pair


def _tensors(content: Any, name: str = '') -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f'{name}.{key}' if name else str(key))
    elif isinstance(content, (list, tuple)):
        for i, value in enumerate(content):
            yield from _tensors(value, f'{name}.{i}' if name else str(i))


def _spoilt_values(name: str, tensor: Tensor) -> int:
    if not tensor.dtype.is_floating_point or unusable(tensor, tensor.dtype):
        return 0
    values = tensor.detach().float()  # also shows what is too large for float32
    wrong = ~values.isfinite()
    if name.endswith('running_var'):
        wrong |= values < 0
    count: Any = wrong.sum()
    return int(count.full_tensor() if hasattr(count, 'full_tensor') else count)
