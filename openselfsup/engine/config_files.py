"""The files of a config: its bases, its own names, and the line where a field is written."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError, nearest
from ..shipped import near_configs, shipped_config


def config_files(path: str | Path) -> list[Path]:
    """Return a config file and all its bases, the nearest first.

    Raises:
        UserError: one is not Python, or names a base that is computed, lies nowhere, lies in
            another package or has it for a base itself; with the line.
    """
    files: list[Path] = []
    waiting: list[tuple[Path, ...]] = [(Path(path),)]
    while waiting:
        chain = waiting.pop(0)
        files.append(chain[-1])
        for base, line in _bases(chain[-1]):
            waiting.append((*chain, _found(base, chain, f'{short(chain[-1])}:{line}')))
    return files


def base_path(base: str, file: str | Path) -> Path:
    """Return where a ``_base_`` of a config lies: beside the config, else among our own."""
    beside = (Path(file).parent / base).resolve()
    return beside if beside.is_file() else shipped_config(base) or beside


def _bases(file: Path) -> Iterator[tuple[str, int]]:
    """Yield each ``_base_`` that a file names, with its line."""
    for node in _parse(file).body:
        if (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == '_base_'):
            try:
                value = ast.literal_eval(node.value)
            except (ValueError, TypeError):
                raise UserError('_base_ is computed here', where=f'{short(file)}:{node.lineno}',
                                expected='the path of a config, or a list of paths, written '
                                'out') from None
            bases = [value] if isinstance(value, str) else value
            if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
                raise UserError(f'_base_ is {value!r}', where=f'{short(file)}:{node.lineno}',
                                expected='the path of a config, or a list of paths')
            lines = [item.lineno for item in getattr(node.value, 'elts', [node.value])]
            yield from zip(bases, lines)


def _found(base: str, chain: tuple[Path, ...], where: str) -> Path:
    """Return the file of a ``_base_`` that the last of ``chain`` names, each a base of the former.

    Raises:
        UserError: it lies nowhere or in another package, or it is one of the chain.
    """
    if '::' in base:
        raise UserError(f"_base_ '{base}' names a config of another package", where=where,
                        expected='the path of a file, or the name of one of ours')
    found = base_path(base, chain[-1])
    if not found.is_file():
        name, folder = Path(base).name, (chain[-1].parent / base).parent
        near = nearest(name, (other.name for other in folder.glob('*.py')
                              if other.resolve() != chain[-1].resolve())) if name else None
        raise UserError(f"_base_ '{base}' lies neither beside this config nor among ours",
                        where=where, nearest=Path(base).with_name(near).as_posix() if near
                        else near_configs(base))
    if found.resolve() in [file.resolve() for file in chain]:
        names = ' -> '.join(short(file) for file in (*chain, found))
        raise UserError(f'the bases of this config lead back to one of them: {names}', where=where)
    return found


def own_names(names: Iterable[str], files: Iterable[Path]) -> set[str]:
    """Return which top-level names of configs are not fields but the configs' own.

    They are variables in capitals or with a leading underscore, what is imported or defined,
    and what a loop counts with. All others are fields, so that a misspelt one is found.
    """
    bound = {name for name in names if name.isupper() or name.startswith('_')}
    for file in files:
        for node in ast.walk(_parse(file)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                bound |= {(alias.asname or alias.name).split('.')[0] for alias in node.names}
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                bound.add(node.name)
            elif isinstance(node, ast.For):
                bound |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}
    return bound & set(names)


def locate(path: tuple[str, ...], files: Iterable[Path]) -> str | None:
    """Return 'file:line' of the deepest part of a key path that a config file spells out."""
    found = _written(path, files)
    return f'{short(found.file)}:{found.line}' if found else None


def other_type(path: tuple[str, ...], files: Sequence[Path]) -> str | None:
    """Return where the dict that holds a field got another ``type`` than where the field stands.

    None where both are written in one file, or the type is no other.
    """
    kind, field = (*path[:-1], 'type'), _written(path, files)
    new = _written(kind, files)
    if not field or not new or {field.left, new.left} != {0}:
        return None
    former = _written(kind, files[files.index(new.file) + 1:])
    if (files.index(new.file) >= files.index(field.file) or not former or former.left
            or ast.dump(former.value) == ast.dump(new.value)):
        return None
    return f'{short(new.file)}:{new.line}'


class _Place(NamedTuple):
    """Where a config file spells out a key path, but for its ``left`` last keys."""

    left: int
    file: Path
    line: int
    value: ast.expr


def _written(path: tuple[str, ...], files: Iterable[Path]) -> _Place | None:
    """Return where the deepest part of a key path is spelt out, in the nearest file of several."""
    places = []
    for file in files:
        for node in _parse(file).body:
            if (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
                    and node.targets[0].id == path[0]):
                left, line, value = descend(node.value, path[1:], node.lineno)
                places.append(_Place(left, file, line, value))
    return min(places, key=lambda place: place.left, default=None)


def descend(node: ast.expr, keys: tuple[str, ...], line: int) -> tuple[int, int, ast.expr]:
    """Follow keys through dict(...) calls, dict literals and lists.

    Returns:
        How many keys are left where they lead no further, the line there, and what stands there.
    """
    children: list[tuple[str, ast.expr, int]] = []
    if isinstance(node, ast.Call):
        children = [(k.arg, k.value, k.lineno) for k in node.keywords if k.arg]
    elif isinstance(node, ast.Dict):
        children = [(k.value, v, k.lineno) for k, v in zip(node.keys, node.values)
                    if isinstance(k, ast.Constant) and isinstance(k.value, str)]
    elif isinstance(node, (ast.List, ast.Tuple)):
        children = [(str(i), item, item.lineno) for i, item in enumerate(node.elts)]
    for key, child, child_line in children:
        if keys and key == keys[0]:
            return descend(child, keys[1:], child_line)
    return len(keys), line, node


def short(file: Path) -> str:
    """Show a path relative to the working directory where it lies below it."""
    file = file.resolve()
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def _parse(file: Path) -> ast.Module:
    """Return the syntax tree of a config.

    Raises:
        UserError: it is not Python.
    """
    try:
        return ast.parse(file.read_text(encoding='utf-8'))
    except SyntaxError as error:
        raise UserError(f'not valid Python: {error.msg}',
                        where=f'{short(file)}:{error.lineno}') from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f'not valid Python: {error}', where=short(file)) from None
