"""A config as Python text that reads back as the same config
(:func:`openselfsup.checkpoints.config_text.read_config_text`).

mmengine's own ``pretty_text`` sorts the keys of dicts. Here their order counts: it is the
order of a recipe's steps.
"""

from keyword import iskeyword
from typing import Any

from mmengine.config import Config

WIDTH = 100


def config_text(cfg: Config) -> str:
    """Return the text of a config file with every field of ``cfg``."""
    return fields_text(cfg.to_dict())


def fields_text(fields: dict[str, Any]) -> str:
    """Return the text of a config file with these fields."""
    return ''.join(f'{key} = {_format(value, 0, len(key) + 3)}\n'
                   for key, value in fields.items())


def _format(value: Any, indent: int, used: int) -> str:
    """Format a value on one line where it fits beside the ``used`` columns, else on several."""
    flat = _flat(value)
    if len(flat) + used <= WIDTH or not isinstance(value, (dict, list, tuple)) or not value:
        return flat
    inner = ' ' * (indent + 4)
    if isinstance(value, dict):
        items = [f'{head}{_format(item, indent + 4, len(inner) + len(head) + 1)}'
                 for head, item in zip(_heads(value), value.values())]
        opening, closing = ('dict(', ')') if _is_plain(value) else ('{', '}')
    else:
        items = [_format(item, indent + 4, len(inner) + 1) for item in value]
        opening, closing = '[]' if isinstance(value, list) else '()'
    lines = ''.join(f'{inner}{item},\n' for item in items)
    return f"{opening}\n{lines}{' ' * indent}{closing}"


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        body = ', '.join(head + _flat(item) for head, item in zip(_heads(value), value.values()))
        return f'dict({body})' if _is_plain(value) else '{' + body + '}'
    if isinstance(value, (list, tuple)):
        body = ', '.join(map(_flat, value))
        if isinstance(value, list):
            return f'[{body}]'
        return f'({body},)' if len(value) == 1 else f'({body})'
    return repr(value)


def _is_plain(value: dict) -> bool:
    """Return whether a dict can be written as dict(key=...)."""
    return all(isinstance(key, str) and key.isidentifier() and not iskeyword(key)
               for key in value)


def _heads(value: dict) -> list[str]:
    return [f'{key}=' if _is_plain(value) else f'{key!r}: ' for key in value]
