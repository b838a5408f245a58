"""Reading configs: mmengine's Config (``_base_`` inheritance) with strict overrides.

A config is a Python file of plain dicts. Its top-level fields are those of
:class:`.fields.PretrainConfig`; each dict with a ``type`` describes one registered class and its
arguments. There are no second copies of anything, so overriding a field in a child config
or with ``--cfg-options`` changes what runs.
"""

import contextlib
import dataclasses
import operator
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import UserError
from ..shipped import find_config
from ..values import accepts
from .config_check import Problem, find_problems
from .config_files import base_path, config_files, locate, other_type, own_names, short
from .fields import PretrainConfig
from .overrides import by_view_name, override
from .own_modules import import_modules
from .plain_values import make_plain


def load_config(path: str | Path, options: list[str] | None = None) -> Config:
    """Read a config with its bases, apply ``KEY=VALUE`` overrides and check every field.

    Args:
        path: the config file, or the name of one of ours: ``PLM_SSL/r18_bs256_ep200``.
        options: overrides such as ``'optimizer.lr=0.01'``; list items by position,
            ``'hooks.0.interval=5'``. Values are Python literals or ``dict(key=value)``, else
            strings. A dict replaces the one that stands there, as if it had ``_delete_=True``.

    Returns:
        The config with the defaults of :class:`.fields.PretrainConfig` filled in.

    Raises:
        UserError: no such file, not Python, or any number of mistakes in the fields: all
            of them are listed with file, line, key path and the nearest valid name.
    """
    path = find_config(path)
    files = config_files(path)
    cfg = _read(path, files)
    for name in own_names(cfg, files) - set(PretrainConfig.__annotations__):
        cfg._cfg_dict.pop(name)
    return _checked(cfg, path, files, options)


def check_fields(fields: dict[str, Any], path: Path, files: list[Path],
                 options: list[str] | None = None) -> Config:
    """Make a config of fields that were made from files in another dialect.

    Args:
        fields: the top-level fields.
        path: the file that the config is called after.
        files: where mistakes are looked for: the file and its bases.
        options: overrides, see :func:`load_config`.

    Raises:
        UserError: see :func:`load_config`.
    """
    return _checked(Config(fields, filename=str(path)), path, files, options)


def _checked(cfg: Config, path: Path, files: list[Path], options: list[str] | None) -> Config:
    """Fill in the defaults, apply the overrides, import the user's modules, check every field."""
    for field in dataclasses.fields(PretrainConfig):
        if field.name not in cfg and field.default is not dataclasses.MISSING:
            cfg[field.name] = field.default
        elif field.name not in cfg and field.default_factory is not dataclasses.MISSING:
            cfg[field.name] = field.default_factory()
    translated: list[str] = []
    problems: list[Problem] = []
    for option in options or []:  # each on what the ones before it left
        translated.append(by_view_name(cfg, option))
        if problem := override(cfg, translated[-1], PretrainConfig.__annotations__):
            problems.append(problem)
    if accepts(cfg.custom_imports, PretrainConfig.__annotations__['custom_imports']):
        import_modules((cfg.custom_imports or {}).get('imports', []), 'custom_imports')
        odd = make_plain(cfg)
        problems += find_problems(cfg, PretrainConfig)
        told = {problem.path for problem in problems}
        problems += [problem for problem in odd if problem.path not in told]
    else:  # without them names that are right are unknown: no word of those
        problems += [problem for problem in find_problems(cfg, PretrainConfig)
                     if problem.path[0] == 'custom_imports']
    if problems:
        raise report(problems, path, files, translated)
    return cfg


def _get_base(base: str, file: str) -> tuple[str, str | None]:
    """Find a base as mmengine does, and one of ours by its name."""
    return str(base_path(base, file)), None


@contextlib.contextmanager
def _bases_by_name() -> Iterator[None]:
    """Let mmengine find our configs by name in what is read within, and in nothing else."""
    found = Config._get_cfg_path
    Config._get_cfg_path = staticmethod(_get_base)
    try:
        yield
    finally:
        Config._get_cfg_path = staticmethod(found)


def _read(path: Path, files: list[Path]) -> Config:
    try:
        # Not lazily: what a config imports it may call, and its bases are named by _base_.
        with _bases_by_name():
            return Config.fromfile(str(path), import_custom_modules=False,
                                   format_python_code=False, lazy_import=False)
    except SyntaxError as error:  # that ast does not see, such as a return at the top
        raise UserError(f'not valid Python: {error.msg}',
                        where=f'{error.filename or path}:{error.lineno}') from None
    except Exception as error:  # a config is code: whatever it raises is the user's to see
        ours = {file.resolve() for file in files}
        lines = [f'{short(Path(frame.filename))}:{frame.lineno}'
                 for frame in traceback.extract_tb(error.__traceback__)
                 if Path(frame.filename).resolve() in ours]
        raise UserError(f'{type(error).__name__}: {error}',
                        where=lines[-1] if lines else str(path)) from error


def report(problems: list[Problem], path: Path, files: list[Path], options: Iterable[str] = ()
           ) -> UserError:
    """Make one error of all problems, each with the place where it was written.

    Args:
        problems: what is wrong.
        path: the config.
        files: the config and its bases.
        options: overrides that may be the place.
    """
    lines = []
    for problem in problems:
        key, place = '.'.join(problem.path), _option_at(problem.path, options)
        hint = f"; did you mean '{problem.nearest}'?" if problem.nearest else ''
        if problem.untaken and not place:
            hint += _other_type(problem.path, files, options)
        place = place or locate(problem.path, files) or str(path)
        lines.append(f'{place}: {key}: {problem.what}{hint}')
    if len(lines) == 1:
        return UserError(lines[0])
    return UserError(f'{len(lines)} mistakes in this config:\n  ' + '\n  '.join(lines),
                     where=str(path))


def _option_at(path: tuple[str, ...], options: Iterable[str]) -> str | None:
    """Return the last override that sets a field, what it holds or what holds it."""
    found = [option for option in options
             if all(map(operator.eq, path, option.split('=')[0].split('.')))]
    return f'--cfg-options {found[-1]}' if found else None


def _other_type(path: tuple[str, ...], files: list[Path], options: Iterable[str]) -> str:
    """Say where a dict got another type than the one that its field, from a base, belongs to."""
    if place := _option_at((*path[:-1], 'type'), options):
        return f"; `type` was changed in {place}; {'.'.join(path[:-1])}._delete_=True before it " \
               'begins anew'
    if place := other_type(path, files):
        return f'; `type` was changed in {place}; `_delete_=True` there begins anew'
    return ''
