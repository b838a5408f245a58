"""Configs in the published dialect: how they are recognised and read.

A published config is a Python module that is executed; ``_base_`` names others, whose dicts its
own are merged into key by key (mmcv 0.x).
"""

import ast
import dataclasses
import traceback
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..engine.fields import PretrainConfig
from ..errors import UserError
from ..shipped import shipped_config

#: A config that sets one of these at the top is in the published dialect, unless it sets a field
#: of ours that the published trainer does not know.
MARKS = frozenset({'data', 'total_epochs', 'lr_config'})
_SHARED = {'model', 'optimizer', 'seed', 'work_dir', 'pretrained', 'hooks'}
_OURS = frozenset(PretrainConfig.__annotations__) - _SHARED


@dataclasses.dataclass
class PublishedConfig:
    """A published config as it stands, bases merged.

    Attributes:
        path: the file.
        values: its top-level names and what they hold.
        files: the file and all its bases, the nearest first.
        repaired: file, ``_base_`` as written, and the file that was read in its place, for each
            base that does not lie where it is said to.
        used: top-level names that an expression of these files reads.
    """

    path: Path
    values: dict[str, Any]
    files: list[Path]
    repaired: list[tuple[Path, str, Path]]
    used: set[str]


def is_published(path: Path) -> bool:
    """Return whether a config is written in the published dialect, without executing it.

    Raises:
        UserError: it is not valid Python.
    """
    try:
        names = {name for file in _chain(path)[0] for name in _assigned(file)}
    except SyntaxError as error:
        raise _no_python(error) from None
    except (OSError, ValueError, RecursionError, MemoryError, UserError):
        return False  # whoever reads it says what is wrong
    return bool(MARKS & names) and not _OURS & names


def read(path: Path) -> PublishedConfig:
    """Execute a published config and its bases.

    Raises:
        UserError: a base that is nowhere, or what Python says of the code.
    """
    try:
        files, repaired = _chain(path)
    except SyntaxError as error:
        raise _no_python(error) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f'not valid Python: {error}', where=str(path)) from None
    used = {node.id for file in files for node in ast.walk(_parse(file))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return PublishedConfig(path, _merged(path, ()), files, repaired, used)


def _no_python(error: SyntaxError) -> UserError:
    return UserError(f'not valid Python: {error.msg}', where=f'{error.filename}:{error.lineno}')


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    own = _executed(path)
    own.pop('_base_', None)
    below: dict[str, Any] = {}
    for _, found in _found_bases(path, above):
        below.update(_merged(found, (*above, path)))
    return merge(own, below)


def merge(own: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with the values of ``own``, dicts key by key; ``_delete_`` starts anew."""
    merged = dict(below)
    for key, value in own.items():
        if isinstance(value, Mapping) and key in merged:
            delete = value.get('_delete_', False)
            value = {k: v for k, v in value.items() if k != '_delete_'}
            if not delete and isinstance(merged[key], Mapping):
                value = merge(value, merged[key])
        merged[key] = value
    return merged


def _executed(path: Path) -> dict[str, Any]:
    """Return the top-level names that a file defines, without what it imports and defines."""
    namespace: dict[str, Any] = {'__name__': path.stem, '__file__': str(path)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of '\d' in strings that are not raw
            exec(compile(path.read_text(encoding='utf-8'), str(path), 'exec'), namespace)
    except Exception as error:  # a config is code: whatever it raises is the user's to see
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        raise UserError(f'{type(error).__name__}: {error}',
                        where=f'{path}:{line}' if line else str(path)) from error
    return {name: value for name, value in namespace.items() if not name.startswith('__')
            and not isinstance(value, (types.ModuleType, types.FunctionType, type))}


def _chain(path: Path, above: tuple[Path, ...] = ()
           ) -> tuple[list[Path], list[tuple[Path, str, Path]]]:
    """Return a file and its bases, and those bases that do not lie where they are said to."""
    files, repaired = [path], []
    for base, found in _found_bases(path, above):
        if not (path.parent / base).is_file():
            repaired.append((path, base, found))
        further = _chain(found, (*above, path))
        files += further[0]
        repaired += further[1]
    return files, repaired


def _found_bases(file: Path, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """Yield each base as written and where it lies: if not there, in a folder above.

    PLM_SSL's six configs name ``../../base.py`` where ``../base.py`` is.

    Raises:
        UserError: it lies nowhere, or names a file that it is a base of.
    """
    seen = {path.resolve() for path in (*above, file)}
    for base in _bases(file):
        written = file.parent / base
        above_it = file.resolve().parents[:Path(base).parts.count('..') + 2]
        places = [written] if written.is_file() else [f / written.name for f in above_it]
        found = next((place for place in places if place.is_file()
                      and place.resolve() not in seen), None) or shipped_config(base)
        if found is None:
            raise UserError(f"the _base_ '{base}' is not there, nor is a {written.name} in a "
                            'folder above', where=str(file))
        yield base, found


def _bases(file: Path) -> list[str]:
    for node in _parse(file).body:
        if (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == '_base_'):
            bases = ast.literal_eval(node.value)
            return [bases] if isinstance(bases, str) else list(bases)
    return []


def _assigned(file: Path) -> Iterator[str]:
    for node in _parse(file).body:
        if isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _parse(file: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return ast.parse(file.read_text(encoding='utf-8'), str(file))

