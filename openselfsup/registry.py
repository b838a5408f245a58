"""One scope, 'openselfsup', over mmengine's registries.

Every config dict with a ``type`` is built by one of the registries below. Classes register
where they are defined; a registry imports its package at the first lookup, so no tool has
to import anything for its side effects.
"""

import inspect
from typing import Any

from mmengine.registry import Registry as _Registry

from .errors import UserError, nearest
from .values import annotations, fault

SCOPE = 'openselfsup'


def _build(cfg: dict, registry: 'Registry', **defaults: Any) -> Any:
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise UserError(f"a {registry.name} is described by a dict with 'type', not by {cfg!r}")
    arguments = {**defaults, **{k: v for k, v in cfg.items() if k != 'type'}}
    cls = registry.get(cfg['type'])
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        raise UserError(f'{registry.name} {cls.__name__}: {error}') from None
    for name, hint in annotations(cls).items():
        if name in arguments and (said := fault(arguments[name], hint)):
            raise UserError(f'{registry.name} {cls.__name__}: {name} {said}')
    return cls(**arguments)


class Registry(_Registry):
    """mmengine's registry, with names that fail loudly and builds without wrapping frames."""

    def __init__(self, name: str, package: str):
        super().__init__(name, build_func=_build, scope=SCOPE, locations=[f'{SCOPE}.{package}'])

    def get(self, key: Any) -> Any:
        """Return the class registered as ``key`` (a class is returned as it is).

        Raises:
            UserError: nothing is registered under that name; the nearest names are given.
        """
        if inspect.isclass(key):
            return key
        self.import_from_location()
        found = self.module_dict.get(key)
        if found is None:
            raise UserError(f"no {self.name} is called '{key}'",
                            expected='one of ' + ', '.join(sorted(self.module_dict)),
                            nearest=nearest(str(key), self.module_dict))
        return found


ALGORITHMS = Registry('algorithm', 'models.algorithms')
BACKBONES = Registry('backbone', 'models.backbones')
NECKS = Registry('neck', 'models.necks')
HEADS = Registry('head', 'models.heads')
SOURCES = Registry('source', 'datasets')
DATASETS = Registry('dataset', 'datasets')
RECIPES = Registry('recipe', 'datasets')
STEPS = Registry('recipe step', 'datasets')
HOOKS = Registry('hook', 'engine.hooks')
OPTIMIZERS = Registry('optimizer', 'training.optimizers')
SCHEDULES = Registry('schedule', 'training.schedules')
