"""Saying which part of a config a mistake belongs to that shows only when the part is built."""

import contextlib
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from ..errors import UserError
from .fields import PretrainConfig


@contextlib.contextmanager
def placed(cfg: Config) -> Iterator[None]:
    """Add the key path of the part that was being built to a :class:`UserError` without one."""
    try:
        yield
    except UserError as error:
        path = _find(error.part, cfg._cfg_dict) if error.part else None
        if not path or (error.where or '').split('.')[0] in PretrainConfig.__annotations__:
            raise
        file = f' of {cfg.filename}' if cfg.filename else ''
        raise UserError(str(error), where='.'.join(path) + file) from error


def _find(part: dict[str, Any], cfg: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the key path of a part: the same dict, else the only one that may have become it."""
    found = list(_parts(cfg))
    same = [path for path, value in found if value is part]
    # Methods add arguments such as in_channels to a copy.
    alike = same or [path for path, value in found if all(
        key in part and part[key] == item for key, item in value.items())]
    return alike[0] if len(alike) == 1 else None


def _parts(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Yield the key path of every dict with a ``type``, and the dict."""
    if isinstance(value, dict) and 'type' in value:
        yield above, value
    if isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _parts(item, (*above, str(key)))
