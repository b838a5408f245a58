"""Values of a config that a text can hold: a run writes its config, and goes on from what it wrote.

A config is Python, where a path, a number of NumPy or a class is at hand; each becomes the string,
number or name that it stands for.
"""

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict

from ..registry import REGISTRIES
from .config_check import Problem


def make_plain(cfg: Config) -> list[Problem]:
    """Replace in place what text cannot hold, and return what stands for nothing that it can."""
    problems: list[Problem] = []
    for key in cfg:
        cfg._cfg_dict[key] = ConfigDict({key: _plain(cfg[key], (key,), problems)})[key]
    return problems


def _plain(value: Any, path: tuple[str, ...], problems: list[Problem]) -> Any:
    if isinstance(value, Mapping):
        return {_plain(key, path, problems): _plain(item, (*path, str(key)), problems)
                for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (range, set, frozenset)):
        value = list(value) if isinstance(value, range) else sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        items = [_plain(item, (*path, str(i)), problems) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if inspect.isclass(value) and (name := _registered(value)):
        return name
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration its text, not its name
    for kind in (bool, int, float):
        if isinstance(value, kind) and math.isfinite(value):
            return kind(value)
    if value is not None:
        what = ('a class that nothing registers' if inspect.isclass(value)
                else 'nothing that a run can write into its config.py')
        problems.append(Problem(path, f'{path[-1]} is {value!r}, {what}; expected a number, a '
                                      'string, a list or a dict'))
    return value


def _registered(cls: type) -> str | None:
    return next((name for table in REGISTRIES for name in table.names()
                 if table.module_dict[name] is cls), None)
