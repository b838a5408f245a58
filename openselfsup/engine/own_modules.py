"""Importing the user's own modules, which register what a config names."""

import importlib
import itertools
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import UserError, nearest
from .config_files import short


def import_modules(names: Iterable[str], where: str) -> None:
    """Import the user's own modules.

    Args:
        names: of the modules.
        where: the field or flag that lists them.

    Raises:
        UserError: Python does not find one, or one that it imports.
    """
    for name in names:
        if name.endswith('.py'):
            raise UserError(f"'{name}' is the name of a file", where=where,
                            expected='the name of a module, without .py',
                            nearest='.'.join(Path(name).with_suffix('').parts))
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if f'{name}.'.startswith(f'{error.name}.'):
                raise UserError(f'{error}', where=where, nearest=nearest(name, _modules(name), 0.7),
                                expected='a module that Python finds, for instance with '
                                         'PYTHONPATH=.') from None
            raise UserError(f"{_importing(error)} imports '{error.name}', which Python does not "
                            'find', where=where) from None


def _modules(name: str) -> Iterator[str]:
    """Yield the modules that lie where this one might: ahead of Python's own library."""
    package = name.split('.')[:-1]
    own = itertools.takewhile(lambda folder: folder != sysconfig.get_path('stdlib'), sys.path)
    for folder in own:
        for path in Path(folder, *package).glob('*'):
            if path.suffix == '.py' or (path / '__init__.py').is_file():
                yield '.'.join([*package, path.stem])


def _importing(error: ImportError) -> str:
    """Return 'file:line' of the import that failed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if not frame.filename.startswith('<') and frame.filename != importlib.__file__]
    return f'{short(Path(frames[-1].filename))}:{frames[-1].lineno}'
