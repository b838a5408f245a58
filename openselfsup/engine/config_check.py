"""Finding every mistake of a config at once, before anything is built.

Each dict with a ``type`` is compared with the signature of the class registered under
that name, and each value with its annotation. What is unknown or out of range is reported
with file, line, key path and the nearest valid name. Which registry a dict belongs to is found
by its ``type``.
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from mmengine.config import Config

from ..datasets.recipes import are_named_views
from ..errors import UserError, nearest
from ..registry import (
    HEADS,
    NECKS,
    OPTIMIZERS,
    SCHEDULES,
    Registry,
    registry_named,
    registry_of,
)
from ..training.optimizers import paramwise_faults
from ..values import NotNegative, Part, accepts, annotations, choices, fault

# Arguments that training fills in itself, and fields that it takes out before it builds. A class
# that gets arguments from the method it is a part of names them in its attribute ``filled_in``.
FILLED_IN = {OPTIMIZERS.name: {'params'}, SCHEDULES.name: {'base_lr', 'epochs', 'steps_per_epoch'}}
TAKEN_OUT = {OPTIMIZERS.name: {'decay_norm_and_bias': bool, 'paramwise_options': Mapping | None,
                               'layer_decay': Part | None,
                               'weight_decay_end': NotNegative | None}}
# Arguments that methods fill in where a config does not say them.
INFERRED = {NECKS.name: ('in_channels',), HEADS.name: ('in_channels',)}
# Dicts under arguments that end so are of mmcv's dialect (norm_cfg, init_cfg), not of a registry.
FOREIGN = '_cfg'


@dataclasses.dataclass
class Problem:
    """One mistake: where it stands (key path), what it is, and the nearest valid choice.

    ``untaken``: it is an argument that the class of its dict does not take.
    """

    path: tuple[str, ...]
    what: str
    nearest: str | None = None
    untaken: bool = False


def find_problems(cfg: Config, settings: type) -> list[Problem]:
    """Return every unknown, misspelt or missing field of a config, and every wrong value.

    Args:
        cfg: a loaded config.
        settings: dataclass whose fields are the valid top-level fields.
    """
    hints = get_type_hints(settings, include_extras=True)
    known = {field.name for field in dataclasses.fields(settings)}
    problems = [Problem((key,), f"unknown field '{key}'; a variable of your own is written in "
                                f"capitals, {key.upper()}"
                        if nearest(key, known) is None and not key.isupper()
                        else f"unknown field '{key}'", nearest(key, known))
                for key in cfg if key not in known]
    for field in dataclasses.fields(settings):
        if field.name not in cfg:
            problems.append(Problem((field.name,), f"the field '{field.name}' is missing"))
        else:
            problems += _check_argument((field.name,), hints[field.name], cfg[field.name])
    return problems


def _check_argument(path: tuple[str, ...], hint: Any, value: Any) -> Iterator[Problem]:
    """Check one argument: what it describes, where it does, else its type and its range."""
    name = path[-1]
    problems = []
    # A text or a number in place of a list is told by the annotation.
    scalar = isinstance(value, (str, int, float, bool)) and not accepts({'type': ''}, hint)
    if _may_describe(hint) and not name.endswith(FOREIGN) and not scalar:
        # What is called after a registry, and annotated, holds nothing but descriptions.
        strict = registry_named(name) is not None and hint is not Any
        problems = list(_check_value(path, name, value, strict))
    if not problems and (said := fault(value, hint)):
        problems = [Problem(path, f'{name} {said}', nearest(str(value), choices(hint)))]
    yield from problems


def _may_describe(hint: Any) -> bool:
    return accepts({'type': ''}, hint) or accepts([], hint)


def _check_value(path: tuple[str, ...], name: str, value: Any, strict: bool) -> Iterator[Problem]:
    """Check what stands under an argument ``name``: one described object or several.

    Args:
        path: where it stands.
        name: the argument.
        value: what stands there.
        strict: whether anything but descriptions is a mistake.
    """
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _check_value((*path, str(i)), name, item, strict)
    elif isinstance(value, dict) and 'type' in value:
        yield from _check_object(path, name, value)
    elif not strict or value is None:
        return
    elif isinstance(value, dict) and (path[-1] == 'steps'
                                      or path[-1] == 'recipe' and are_named_views(value)):
        described = {key for key, item in value.items()
                     if isinstance(item, dict) and 'type' in item}
        for key, item in value.items():
            for problem in _check_value((*path, key), name, item, strict):
                if problem.path == (*path, key) and key not in described:  # a misspelt name?
                    problem = dataclasses.replace(problem, nearest=nearest(key, described))
                yield problem
    elif isinstance(value, dict):
        table = registry_named(name)
        yield Problem(path, f"this {table.name if table is not None else name} has no 'type'")
    elif isinstance(value, (str, int, float, bool)):
        yield Problem(path, f"'{path[-1]}' must be a dict with 'type', not {value!r}")


def _check_object(path: tuple[str, ...], name: str, value: dict) -> Iterator[Problem]:
    """Compare a dict with the signature of the class that its ``type`` names."""
    kind = value['type']
    try:
        # The engine itself builds what stands at the top: only one registry will do there.
        table = registry_named(name) if name == path[0] else None
        if table is None:
            table = registry_of(kind, name)
        cls = table.get(kind)
    except UserError as error:
        expected = error.expected or ''
        if expected.startswith('one of '):
            expected = f' (known: {expected[7:]})'
        elif expected:
            expected = f'; expected {expected}'
        yield Problem((*path, 'type'), error.what + expected, error.nearest)
        return
    parameters = inspect.signature(cls).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = {n for n, p in parameters.items()
             if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    taken_out = TAKEN_OUT.get(table.name, {})
    valid = (names | set(taken_out)) - filled_in(table, cls)
    for key in value:
        if key != 'type' and key not in valid and not takes_all:
            view = name == 'recipe' and isinstance(value[key], dict) and 'type' in value[key]
            yield Problem((*path, key), f"{kind} takes no argument '{key}'"
                          + ('; to name views where there was one recipe, or the other way round, '
                             "begin with _delete_=True" if view else ''),
                          nearest(key, valid), untaken=not view)
    for key, parameter in parameters.items():
        if (parameter.default is parameter.empty and key in valid and key not in value
                and key not in INFERRED.get(table.name, ())):
            yield Problem(path, f"{kind} needs the argument '{key}'")
    hints = annotations(cls) | taken_out
    for key, child in value.items():
        if key in valid:
            yield from _check_argument((*path, key), hints.get(key, Any), child)
    options = value.get('paramwise_options')
    if table is OPTIMIZERS and isinstance(options, Mapping):
        for keys, what, near in paramwise_faults(cls, options):
            yield Problem((*path, 'paramwise_options', *keys), what, near)


def filled_in(table: Registry, cls: Any) -> set[str]:
    """Return the arguments of a class that stand in no config: what builds it adds them."""
    return FILLED_IN.get(table.name, set()) | set(getattr(cls, 'filled_in', ()))
