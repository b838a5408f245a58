"""Modes of a module: how to look at one that is being trained and leave it as it was."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode; afterwards each submodule has its former mode again.

    A part that is kept in eval mode during training, such as a frozen batch norm, stays there,
    which ``module.train()`` would change.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
