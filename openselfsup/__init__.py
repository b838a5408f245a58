"""Self-supervised pretraining on histopathology tiles."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pretrained import load_backbone

__version__ = '0.1.0'
__all__ = ['load_backbone']


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `import openselfsup` needs no torch and takes no time.
    if name == 'load_backbone':
        from .pretrained import load_backbone
        return load_backbone
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
