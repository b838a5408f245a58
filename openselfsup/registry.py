"""One scope, 'openselfsup', over mmengine's registries.

Every config dict with a ``type`` is built by one of the registries below. Classes register
where they are defined; a registry imports every module of its package at the first lookup, so
no tool has to import anything for its side effects, and a new file has to be listed nowhere.
"""

import importlib
import inspect
import pkgutil
from typing import Any

from mmengine.registry import Registry as _Registry

from . import views
from .errors import UserError, nearest
from .values import annotations, fault

SCOPE = 'openselfsup'


def _build(cfg: dict, registry: 'Registry', **defaults: Any) -> Any:
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise UserError(f"a {registry.name} is described by a dict with 'type', not by {cfg!r}")
    arguments = {**defaults, **{k: v for k, v in cfg.items() if k != 'type'}}
    cls = registry.get(cfg['type'])
    if lacking := sorted(getattr(cls, '__abstractmethods__', ())):
        raise UserError(f"{registry.name} {cls.__name__} does not define {', '.join(lacking)}",
                        expected='what its base class leaves to it')
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        raise UserError(f'{registry.name} {cls.__name__}: {error}') from None
    for name, hint in annotations(cls).items():
        if name in arguments and (said := fault(arguments[name], hint)):
            raise UserError(f'{registry.name} {cls.__name__}: {name} {said}')
    try:
        return cls(**arguments)
    except UserError as error:
        error.part = error.part or cfg  # the innermost
        raise


class Registry(_Registry):
    """mmengine's registry, with names that fail loudly and builds without wrapping frames."""

    _imported: bool

    def __init__(self, name: str, package: str, table: dict[str, Any] | None = None):
        super().__init__(name, build_func=_build, scope=SCOPE, locations=[f'{SCOPE}.{package}'])
        if table is not None:
            self._module_dict = table

    def import_from_location(self) -> None:
        """Import the modules in which classes may register, once."""
        if self._imported:
            return
        for location in self._locations:
            package = importlib.import_module(location)
            for module in pkgutil.iter_modules(getattr(package, '__path__', ())):
                importlib.import_module(f'{location}.{module.name}')
        self._imported = True

    def names(self) -> list[str]:
        """Return every registered name, in order."""
        self.import_from_location()
        return sorted(self.module_dict)

    def get(self, key: Any) -> Any:
        """Return the class registered as ``key`` (a class is returned as it is).

        Raises:
            UserError: nothing is registered under that name; the nearest names are given.
        """
        if inspect.isclass(key):
            return key
        known = self.names()
        found = self.module_dict.get(key) if isinstance(key, str) else None
        if found is None:
            raise UserError(f"no {self.name} is called '{key}'",
                            expected='one of ' + ', '.join(known),
                            nearest=nearest(str(key), known))
        return found


ALGORITHMS = Registry('algorithm', 'models.algorithms')
BACKBONES = Registry('backbone', 'models.backbones')
NECKS = Registry('neck', 'models.necks')
HEADS = Registry('head', 'models.heads')
SOURCES = Registry('source', 'datasets')
DATASETS = Registry('dataset', 'datasets')
RECIPES = Registry('recipe', 'datasets')
STEPS = Registry('recipe step', 'views.steps', views.STEPS)  # one table: views know no registry
HOOKS = Registry('hook', 'engine.hooks')
OPTIMIZERS = Registry('optimizer', 'training.optimizers')
SCHEDULES = Registry('schedule', 'training.schedules')
REGISTRIES = (ALGORITHMS, BACKBONES, NECKS, HEADS, SOURCES, DATASETS, RECIPES, STEPS, HOOKS,
              OPTIMIZERS, SCHEDULES)


def registry_named(argument: str) -> Registry | None:
    """Return the registry that an argument's last word names: a ``group_neck`` is a neck.

    None for an argument that is called otherwise; 'model' is an algorithm.
    """
    word = argument.rpartition('_')[2].removesuffix('s')
    word = 'algorithm' if word == 'model' else word
    return next((table for table in REGISTRIES if table.name.split()[-1] == word), None)


def registry_of(key: Any, argument: str) -> Registry:
    """Return the registry that holds a ``type``.

    Where several do, it is the one that the argument is called after.

    Raises:
        UserError: none holds it, or several do and the argument is called after none of them.
    """
    named = registry_named(argument)
    if named is not None and (inspect.isclass(key) or key in named.names()):
        return named
    holding = [table for table in REGISTRIES if key in table.names()
               or inspect.isclass(key) and key in table.module_dict.values()]
    if len(holding) == 1:
        return holding[0]
    if holding:
        raise UserError(f"'{key}' is the name of " + ' and of '.join(
            f'a {table.name}' for table in holding), expected='another name for one of them, or '
            f"an argument called after what it takes, such as '{argument}_{holding[0].name}'")
    if named is not None:
        named.get(key)
    every = {name for table in REGISTRIES for name in table.names()}
    raise UserError(f"nothing is registered as '{key}'", nearest=nearest(str(key), every))
