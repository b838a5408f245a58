"""Reading the config that a checkpoint of ours carries, without running it as code."""

import ast
from typing import Any


def read_config_text(text: str) -> dict[str, Any]:
    """Return the fields of a config as a run writes it: plain values, dicts and lists.

    Raises:
        ValueError: it is another text.
    """
    try:
        return dict(_field(line) for line in ast.parse(text).body)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f'not as we write one ({error})') from None


def _field(line: ast.stmt) -> tuple[str, Any]:
    if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
        return line.targets[0].id, _value(line.value)
    raise ValueError(f'not as we write one (line {line.lineno} sets no field)')


def _value(node: ast.expr) -> Any:
    if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict'
            and not node.args):
        return {word.arg: _value(word.value) for word in node.keywords}
    if isinstance(node, ast.Dict) and None not in node.keys:  # None: a ** in the braces
        return {_value(key): _value(item) for key, item in zip(node.keys, node.values) if key}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return ast.literal_eval(node)
