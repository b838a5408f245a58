"""Writing checkpoints so that no crash can spoil one."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import atomic_file

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype,
          torch.device)


def save(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint so that ``path`` is always either the old one or the new one.

    Missing folders are made. What earlier, killed processes left half-written in the same
    folder is removed.

    Args:
        checkpoint: dict of tensors and plain Python types, nested in any way.
        path: file to write; an existing one is replaced.

    Raises:
        TypeError: something in ``checkpoint`` is neither a tensor nor a plain type; its key
            path is named.
        UserError: the disk is full, or the folder cannot be written. The old file is untouched.
    """
    check_plain(checkpoint, 'checkpoint')
    with atomic_file(path) as file:
        torch.save(checkpoint, file)


def check_plain(value: Any, where: str) -> None:
    """Raise TypeError for what is neither a tensor nor plain; ``where`` is the key path to it."""
    kind = type(value)
    if kind in (dict, OrderedDict):
        for key, item in value.items():
            check_plain(key, f'a key of {where}')
            check_plain(item, f'{where}[{key!r}]')
    elif kind in (list, tuple, set):
        for i, item in enumerate(value):
            check_plain(item, f'{where}[{i}]')
    elif kind not in _PLAIN and not isinstance(value, Tensor):
        raise TypeError(f'{where} is a {kind.__module__}.{kind.__qualname__}; checkpoints hold '
                        'tensors and plain Python types only')
