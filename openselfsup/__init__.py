"""Self-supervised pretraining on histopathology tiles."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pretrained import load_backbone

__version__ = '0.1.0'
__all__ = ['load_backbone']

# Torch's threads (OpenMP) wait for each other by spinning, which takes cores from whoever else
# is busy on this machine, our own loader and other ranks among them: a training beside two busy
# processes on two cores then gets a fifth of its fair share. Read when torch is loaded;
# what the user says, comes first. docs/performance.md has the figures.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')  # GNU's, in torch's own builds: some 2 us
    os.environ.setdefault('KMP_BLOCKTIME', '0')  # Intel's and LLVM's, in ms


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `import openselfsup` needs no torch and takes no time.
    if name == 'load_backbone':
        from .pretrained import load_backbone
        return load_backbone
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
