"""Overrides of single fields of a config, ``KEY=VALUE`` on the command line."""

import ast
import re
from collections.abc import Collection, Iterator
from typing import Any

from mmengine.config import Config, ConfigDict

from ..datasets.recipes import are_named_views
from ..errors import UserError, nearest
from .config_check import Problem

# How a value begins that is no plain text, and how such a value is written.
_FORMS = {'[': '[dict(type="...")]', '(': '("text", "text")', '{': '{"key": "text"}',
          'dict(': 'dict(key="text")'}
_WORDS = {'true': True, 'false': False, 'none': None, 'null': None}


def split_option(option: str) -> tuple[list[str], Any]:
    """Split ``'a.b=value'`` into its key path and its parsed value."""
    key, equals, text = option.partition('=')
    if not equals or not key:
        raise UserError(f"'{option}' is not of the form KEY=VALUE", where='--cfg-options')
    if text.lower() in _WORDS:
        return key.split('.'), _WORDS[text.lower()]
    try:
        return key.split('.'), ast.literal_eval(_Literals().visit(ast.parse(text, mode='eval')))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if opening := next((start for start in _FORMS if text.startswith(start)), None):
            raise UserError(f'{text} is no Python literal; the shell may have taken its quotes',
                            where=f'--cfg-options {key}', expected='quotes around the option and '
                            f"others within, such as '{key}={_FORMS[opening]}'") from None
        return key.split('.'), text


class _Literals(ast.NodeTransformer):
    """Read ``dict(key=value)``, which is how configs are written, and JSON's words as literals."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        word = node.id.lower()
        return ast.Constant(_WORDS[word]) if word in _WORDS else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if (isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args
                and all(keyword.arg for keyword in node.keywords)):
            return ast.Dict([ast.Constant(keyword.arg) for keyword in node.keywords],
                            [keyword.value for keyword in node.keywords])
        return node


def _without_delete(value: Any) -> Any:
    """Return a value as a config stores it: an option's dict starts anew in any case."""
    if isinstance(value, dict):
        return ConfigDict({key: _without_delete(item) for key, item in value.items()
                           if (key, item) != ('_delete_', True)})
    return [_without_delete(item) for item in value] if isinstance(value, list) else value


def by_view_name(cfg: Config, option: str) -> str:
    """Let a position stand for the name of a view: a list has no names."""
    found = re.match(r'dataset\.recipe\.(\d+)(?=[.=])', option)
    dataset = cfg.get('dataset')
    views = dataset.get('recipe') if isinstance(dataset, dict) else None
    if not found or not are_named_views(views) or int(found[1]) >= len(views):
        return option
    return f'dataset.recipe.{list(views)[int(found[1])]}{option[found.end():]}'


def _near(keys: list[str], cfg: Config, fields: Collection[str]) -> str | None:
    """Return the few fields anywhere that are called as the last key is, else one at the top."""
    same = [path for path in _key_paths(cfg._cfg_dict) if path[-1].lower() == keys[-1].lower()]
    if 0 < len(same) <= 3:
        return "' or '".join('.'.join(path) for path in same)
    return nearest(keys[0], fields)


def _key_paths(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the key path of everything that stands in dicts and lists."""
    if isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*above, str(key))
            yield from _key_paths(item, (*above, str(key)))


def override(cfg: Config, option: str, fields: Collection[str]) -> Problem | None:
    """Set one field; a path that the config lacks is left to the check of its class.

    Args:
        cfg: the config.
        option: ``KEY=VALUE``.
        fields: what may stand at the top of a config.
    """
    keys, value = split_option(option)
    if keys[-1] == '_delete_' and (len(keys) == 1 or value is not True):
        return Problem(tuple(keys), 'empties a dict, as in dataset.source._delete_=True')
    if keys[0] not in fields:
        return Problem(tuple(keys), f"unknown field '{keys[0]}'", _near(keys, cfg, fields))
    place: Any = cfg._cfg_dict
    for depth, name in enumerate(keys):
        last = depth == len(keys) - 1
        key: str | int = name
        if isinstance(place, list):
            if not name.isdigit() or int(name) >= len(place):
                return Problem(tuple(keys[:depth + 1]),
                               f"'{name}' is no position in a list of {len(place)}")
            key = int(name)
        elif not isinstance(place, dict):
            return Problem(tuple(keys[:depth + 1]), f'leads into {place!r}, which has no fields')
        if last and key == '_delete_':
            place.clear()
        elif last:
            place[key] = _without_delete(value)
        else:
            if isinstance(place, dict) and place.get(key) is None:
                place[key] = ConfigDict()
            place = place[key]
    return None
