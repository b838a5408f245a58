"""What an argument may be, said once, in its annotation: types, and ranges beside them.

``lr: NotNegative`` is ``Annotated[float, Range(0)]``. The check of a config, the registries'
builds and the tools' flags all read these annotations, so a class states its ranges nowhere
else. Annotations that are not understood here accept everything.
"""

import inspect
import math
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

#: Precisions of a forward pass: bf16 where the device computes in it, bf16, fp16, or float32.
Amp = Literal['auto', 'bf16', 'fp16', 'off']
AMP = get_args(Amp)
#: What gradients are clipped by: all together, each part of a method, or each tensor.
ClipBy = Literal['all', 'part', 'tensor']
#: How the processes of a run are started; see :func:`openselfsup.training.launch.start`.
LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
#: What trains a detector; see :func:`openselfsup.transfer.instance.backends.choose_backend`.
BACKENDS = ('auto', 'detectron2', 'torchvision')

_Init = TypeVar('_Init', bound=Callable)
_UNIONS = (Union, types.UnionType)
_NOT_LISTS = (str, bytes, Mapping)


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; the ends belong to it unless ``above`` or ``below``."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: Any) -> bool:
        """Return whether a number lies in the range."""
        return ((self.low < value if self.above else self.low <= value)
                and (value < self.high if self.below else value <= self.high))

    @property
    def text(self) -> str:
        """The range in words."""
        low = f"{'above' if self.above else 'of at least'} {self.low:.15g}"
        high = f"{'below' if self.below else 'at most'} {self.high:.15g}"
        if self.high == math.inf:
            return low
        if self.low == -math.inf:
            return high if self.below else f'of {high}'
        if not self.above and not self.below:
            return f'from {self.low:.15g} to {self.high:.15g}'
        return f'{low} and {high}'


@dataclass(frozen=True)
class Rising:
    """Pairs whose first number is not above the second."""

    def holds(self, value: Any) -> bool:
        """Return whether the pair rises."""
        return value[0] <= value[1]

    text = ', in rising order'


@dataclass(frozen=True)
class Filled:
    """Lists, dicts and strings that are not empty."""

    def holds(self, value: Any) -> bool:
        """Return whether there is anything in it."""
        return not isinstance(value, Sized) or len(value) > 0

    text = ', not empty'


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
BelowOne = Annotated[float, Range(0, 1, below=True)]
Part = Annotated[float, Range(0, 1, above=True)]
Share = Annotated[float, Range(0, 1, above=True, below=True)]
Span = Annotated[tuple[NotNegative, NotNegative], Rising()]
Side = Count | tuple[Count, Count]


def accepts(value: Any, annotation: Any) -> bool:
    """Return whether a value is what an annotation says.

    A bool is no number, a whole number is also a float, NaN and infinity are neither; a list
    stands for a tuple and the other way round.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return accepts(value, args[0]) and all(
            rule.holds(value) for rule in args[1:] if hasattr(rule, 'holds'))
    if origin in _UNIONS:
        return any(accepts(value, choice) for choice in args)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in args)
    kind = origin or annotation
    if kind is None or kind is types.NoneType:
        return value is None
    if not isinstance(kind, type) or kind in (object, Any, inspect.Parameter.empty):
        return True
    if issubclass(kind, bool):
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if kind is str:
        return isinstance(value, (str, os.PathLike))
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if kind is tuple or (issubclass(kind, Iterable) and kind.__module__ in
                         ('builtins', 'collections.abc') and kind is not bytes):
        return _accepts_items(value, kind, args)
    return isinstance(value, kind)


def _accepts_items(value: Any, kind: type, args: tuple) -> bool:
    if isinstance(value, _NOT_LISTS) or not isinstance(value, Iterable):
        return False
    if not args or not isinstance(value, (Sequence, set)):
        return True
    if kind is tuple and args[-1] is not Ellipsis:
        return len(value) == len(args) and all(map(accepts, value, args))
    return all(accepts(item, args[0]) for item in value)


def describe(annotation: Any) -> str:
    """Return in words what an annotation accepts, such as 'a number from 0 to 1'."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if isinstance(args[1], str):
            return args[1]
        return ' '.join([describe(args[0]), *(rule.text for rule in args[1:])]).replace(' ,', ',')
    if origin in _UNIONS:
        words = list(dict.fromkeys(word for choice in args for word in (
            ('True', 'False') if choice is bool else (describe(choice),))))
        return ', '.join(words[:-1]) + ' or ' + words[-1] if len(words) > 1 else words[0]
    if origin is Literal:
        words = list(map(repr, args))
        return ', '.join(words[:-1]) + ' or ' + words[-1] if len(words) > 1 else words[0]
    kind = origin or annotation
    known = {None: 'None', types.NoneType: 'None', bool: 'True or False', int: 'a whole number',
             float: 'a number', str: 'a string'}
    if kind in known:
        return known[kind]
    if not isinstance(kind, type):
        return 'anything'
    if issubclass(kind, Mapping):
        return 'a dict'
    if kind is tuple and args and args[-1] is not Ellipsis:
        each = list(dict.fromkeys(map(describe, args)))
        return f'a list of {len(args)}, ' + (f'each {each[0]}' if len(each) == 1
                                             else ', '.join(map(describe, args)))
    if issubclass(kind, Iterable) and kind.__module__ in ('builtins', 'collections.abc'):
        return f'a list, each of it {describe(args[0])}' if args else 'a list'
    return f'a {kind.__name__}'


def choices(annotation: Any) -> tuple[str, ...]:
    """Return the strings that an annotation names one by one (Literal)."""
    if get_origin(annotation) is Literal:
        return tuple(arg for arg in get_args(annotation) if isinstance(arg, str))
    return tuple(name for arg in get_args(annotation) for name in choices(arg))


def fault(value: Any, annotation: Any) -> str | None:
    """Return what is wrong with a value, 'must be ..., not ...', or None if it is accepted."""
    if accepts(value, annotation):
        return None
    for rule in get_args(annotation)[1:] if get_origin(annotation) is Annotated else ():
        if hasattr(rule, 'hint') and (hint := rule.hint(value)):
            return hint
    hint = ''
    if accepts(0.5, annotation) and isinstance(value, tuple) and len(value) == 2:
        hint = f'; a decimal is written with a point, {value[0]}.{value[1]}'
    elif isinstance(value, str) and _is_number(value) and accepts(float(value), annotation):
        hint = '; a number is written without quotes'
    return f'must be {describe(annotation)}, not {value!r}{hint}'


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def annotations(function: Callable) -> dict[str, Any]:
    """Return the annotation of each argument of a function or class, ranges included."""
    target = function.__init__ if inspect.isclass(function) else function
    try:
        found = get_type_hints(target, include_extras=True)
        if not found and inspect.isclass(function):
            found = get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # of a user's class, which may name what exists nowhere
        return {}
    parameters = inspect.signature(function).parameters.values()
    named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return {name: hint for name, hint in {**found, **_DECLARED.get(function, {})}.items()
            if name in named and not isinstance(hint, TypeVar)}


def passing_on(base: Callable) -> Callable[[_Init], _Init]:
    """Decorate an ``__init__`` whose ``**arguments`` are those of a base class's.

    Its signature and annotations then name them all, so that a config is checked against them.
    """
    def named(init: _Init) -> _Init:
        own = [p for p in inspect.signature(init).parameters.values()
               if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {p.name for p in own}
        inherited = [p for p in inspect.signature(base).parameters.values()
                     if p.name not in names]
        init.__signature__ = inspect.Signature(own + inherited)  # type: ignore[attr-defined]
        init.__annotations__ = {**base.__annotations__, **init.__annotations__}
        return init
    return named


def declare(function: Callable, **hints: Any) -> None:
    """Say more exactly what arguments of a class of another library may be."""
    _DECLARED.setdefault(function, {}).update(hints)


_DECLARED: dict[Callable, dict[str, Any]] = {}
