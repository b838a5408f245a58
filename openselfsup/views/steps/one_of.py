"""Building steps from configs, and the step that chooses one of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...values import Fraction
from ..draws import Draws
from .base import GEOMETRIES, STEPS, Geometry, ImageStep, Scope, Size, Step, registered

__all__ = ['OneOf', 'build_step', 'named_steps']


def build_step(step: Mapping[str, Any] | Step) -> Step:
    """Return a step from a dict of its class name, under 'type', and its arguments.

    Raises:
        ValueError: no step has that name, or the arguments do not suit it.
    """
    if isinstance(step, Step):
        return step
    arguments = dict(step)
    name = arguments.pop('type', None)
    if name not in STEPS:
        raise ValueError(f'no step is called {name!r}; there are {", ".join(STEPS)}')
    try:
        return STEPS[name](**arguments)
    except TypeError as error:
        raise ValueError(f'{name}: {error}') from None


def named_steps(steps: Sequence | Mapping) -> dict[str, Step]:
    """Build steps; those of a sequence are named after their class, the second ``Cutout2``."""
    if isinstance(steps, Mapping):
        return {name: build_step(step) for name, step in steps.items() if step is not None}
    named: dict[str, Step] = {}
    for step in map(build_step, steps):
        name = type(step).__name__
        again = sum(isinstance(other, type(step)) for other in named.values())
        named[name if not again else f'{name}{again + 1}'] = step
    return named


@registered
@dataclass(kw_only=True)
class OneOf(ImageStep):
    """Apply one of several steps that change pixels.

    Torch's renderer puts the steps in its place, one after the other.

    Args:
        steps: the steps, as for :class:`ViewRecipe`. Each is chosen in proportion to its ``p``.
        p: probability with which a view undergoes one of them.
    """

    p: Fraction = 0.5
    steps: Sequence | Mapping
    after_resize: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        steps = named_steps(self.steps)
        if not any(step.p > 0 for step in steps.values()):
            raise ValueError('OneOf needs a step with p > 0')
        self.named_steps = {name: step for name, step in steps.items()
                            if isinstance(step, ImageStep)}
        if wrong := [name for name in steps if name not in self.named_steps]:
            raise ValueError(f'OneOf takes steps that change pixels, not {", ".join(wrong)}')

    @property
    def geometry(self) -> Geometry:
        """The most that any of the steps may do to the map from view to tile."""
        return max((step.geometry for step in self.named_steps.values()), key=GEOMETRIES.index)

    def draw(self, batch: int, size: Size, generator: Draws) -> dict[str, Tensor]:
        weights = torch.tensor([step.p for step in self.named_steps.values()])
        drawn = {'choice': generator.choice(weights)}
        for name, step in self.named_steps.items():
            for key, value in step.draw(batch, size, generator).items():
                drawn[f'{name}.{key}'] = value
        return drawn

    def _chosen(self, drawn: Scope) -> tuple[ImageStep, Scope]:
        """Return the step that one view undergoes, and its parameters."""
        name, step = list(self.named_steps.items())[int(drawn['choice'])]
        return step, Scope(drawn.parameters, f'{drawn.prefix}{name}.', drawn.interpolation)

    def render_opencv(self, image: np.ndarray, drawn: Scope, size: Size) -> np.ndarray:
        step, drawn = self._chosen(drawn)
        return step.render_opencv(image, drawn, size)

    def render_pil(self, view: Image.Image, drawn: Scope) -> Image.Image:
        step, drawn = self._chosen(drawn)
        return step.render_pil(view, drawn)
