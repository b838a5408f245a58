"""Random numbers of code that knows no generator, drawn from one all the same."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Not every torch gives these a generator; this way their numbers are the same in all versions.
_LIKE: dict[object, Callable] = {aten.rand_like: torch.rand, aten.randn_like: torch.randn,
                                 aten.randint_like: torch.randint}


@functools.cache
def with_generator(operation: OpOverload) -> OpOverload | None:
    """Return the form of a random operation of torch that takes a generator.

    None for an operation that is not random, and for layers of networks with a dropout of their
    own (attention, recurrent ones), which take none in any form.
    """
    if torch.Tag.nondeterministic_seeded not in operation.tags:
        return None
    packet = operation.overloadpacket
    wanted = _arguments(operation) | {('generator', 'Optional[Generator]')}
    return next((form for name in packet.overloads()
                 if _arguments(form := getattr(packet, name)) == wanted), None)


def _arguments(operation: OpOverload) -> set[tuple[str, str]]:
    return {(argument.name, str(argument.type)) for argument in operation._schema.arguments}


class DrawFrom(TorchDispatchMode):
    """Make all random operations of torch, in this thread only, draw from one generator.

    Torchvision's transforms know no generator. Seeding the global one would disturb, and be
    disturbed by, all other threads. Operations are met below Python, where whatever draws is one
    of a few, by whichever of torch's functions and distributions it was called. A generator that
    a caller brings is used as it is.
    """

    def __init__(self, generator: Generator):
        super().__init__()
        self.generator = generator

    def __torch_dispatch__(self, func: OpOverload, types: Sequence[type], args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        form = with_generator(func)
        like = _LIKE.get(func.overloadpacket)
        if (form is None and like is None) or any(isinstance(a, Generator) for a in args):
            return func(*args, **kwargs)
        generator = kwargs.pop('generator', None) or self.generator
        if like is not None:
            image, *bounds = args
            return like(*map(int, bounds), tuple(image.shape), generator=generator,
                        dtype=kwargs.get('dtype') or image.dtype,
                        device=kwargs.get('device') or image.device)
        return (form or func)(*args, **kwargs, generator=generator)
