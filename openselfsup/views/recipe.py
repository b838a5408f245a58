"""ViewRecipe: what a view may undergo; draws the parameters of a batch of views."""

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from ..values import Side
from .draws import Draws
from .geometry import compose
from .steps import GEOMETRIES, GeometricStep, Geometry, ImageStep, OneOf, Step, named_steps
from .steps.base import INTERPOLATIONS, Interpolation


class ViewRecipe:
    """What happens to a tile on its way to a view.

    The geometric steps are composed in their order to one map, in pixels of the tile, and
    rendered first, wherever they stand among the others. The rest follow in their order; the
    resize to ``size`` comes where the renderer finds it best, at the latest before the first
    step that needs the finished view.

    Args:
        size: side of the view in pixels, or (height, width).
        steps: the steps, built or as dicts with a 'type'. In a dict they have names, under
            which a config can change one setting (`steps.jitter.p`) or, by None, leave one
            out.
        interpolation: of the resize to ``size``, 'bilinear' or 'bicubic', both PIL's and
            antialiased where the frame shrinks. Affine steps sample the tile bilinearly.

    Attributes:
        size: (height, width) of the view.
        named_steps: the steps by name.
        geometry: 'axis_aligned' if all maps are, 'affine', or 'none' if a step leaves no
            affine map.

    Raises:
        ValueError: the size is not positive, or a step or the interpolation is unknown or
            wrongly set.
    """

    def __init__(self, size: Side, steps: Sequence | Mapping,
                 interpolation: Interpolation = 'bilinear'):
        if isinstance(size, int):
            size = size, size
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f'size must be a positive integer or (height, width), not {size!r}')
        if interpolation not in INTERPOLATIONS:
            raise ValueError('interpolation must be one of ' + ', '.join(INTERPOLATIONS)
                             + f', not {interpolation!r}')
        height, width = size
        self.size = height, width
        self.interpolation = interpolation
        self.named_steps = named_steps(steps)
        self.geometry: Geometry = max((step.geometry for step in self.steps), key=GEOMETRIES.index,
                            default='axis_aligned')
        images = [(name, step) for name, step in self.named_steps.items()
                  if isinstance(step, ImageStep)]
        first = next((i for i, (_, step) in enumerate(images) if step.after_resize), len(images))
        self.before_resize, self.after_resize = images[:first], images[first:]

    @property
    def steps(self) -> list[Step]:
        """The steps in their order."""
        return list(self.named_steps.values())

    @property
    def breaking_steps(self) -> dict[str, str]:
        """Where steps stand that leave no affine map from view to tile, and what they are.

        Of a :class:`OneOf` it is those among its steps: ``steps.bend.steps.optical``.
        """
        return dict(_breaking(self.named_steps))

    @functools.cached_property
    def is_warped(self) -> bool:
        """Whether a step asks for more than crops, flips, quarter turns and transposes."""
        return any(step.geometry == 'affine' for step in self.steps)

    def draw(self, tile_sizes: Tensor, generator: Generator | Draws) -> dict[str, Tensor]:
        """Draw the parameters of one view of each tile of a batch.

        Args:
            tile_sizes: (height, width) of the tiles in pixels, int64 (B, 2).
            generator: source of all random numbers: torch's, on the CPU, or draws by which each
                view depends on its own key only.

        Returns:
            Tensors on the CPU with leading dimension B:

            - ``view_to_tile``: float32 (B, 2, 3), see :mod:`.geometry`. If ``geometry`` is
                'none' it lacks the distortions.
            - ``crop``: int64 (B, 4), (top, left, height, width) on the tile, and
                ``orientation``: int64 (B,), see :func:`orientation_of`; or, where
                ``is_warped``, ``frame_to_tile``: float64 (B, 2, 3) in pixels, and
                ``frame_size``: int64 (B, 2).
            - ``{step}.apply``: bool (B,), and ``{step}.{parameter}`` of the steps that
                change pixels.
        """
        batch = len(tile_sizes)
        generator = Draws.of(generator, batch)
        size = tile_sizes
        to_tile = torch.eye(2, 3, dtype=torch.float64).expand(batch, 2, 3)
        parameters: dict[str, Tensor] = {}
        for name, step in self.named_steps.items():
            apply = generator.rand() < step.p
            if isinstance(step, GeometricStep):
                inner, new_size = step.draw(size, generator)
                to_tile = torch.where(apply[:, None, None], compose(to_tile, inner), to_tile)
                size = torch.where(apply[:, None], new_size, size)
                continue
            assert isinstance(step, ImageStep)
            parameters[f'{name}.apply'] = apply
            for key, value in step.draw(batch, self.size, generator).items():
                parameters[f'{name}.{key}'] = value
        parameters['view_to_tile'] = in_fractions(to_tile, size, tile_sizes)
        if self.is_warped:
            parameters.update(frame_to_tile=to_tile, frame_size=size)
        else:
            parameters.update(crop=_crop_of(to_tile, size), orientation=orientation_of(to_tile))
        return parameters

    def __repr__(self) -> str:
        width = max(map(len, self.named_steps), default=0)
        lines = [f'  {name:<{width}}  {step!r}' for name, step in self.named_steps.items()]
        head = f'ViewRecipe {self.size[0]} x {self.size[1]}, geometry {self.geometry}'
        if self.interpolation != 'bilinear':
            head += f', {self.interpolation}'
        return '\n'.join([head, *lines])


def _breaking(steps: Mapping[str, Step], where: str = 'steps') -> Iterator[tuple[str, str]]:
    for name, step in steps.items():
        if isinstance(step, OneOf):
            yield from _breaking(step.named_steps, f'{where}.{name}.steps')
        elif step.geometry == 'none':
            yield f'{where}.{name}', type(step).__name__


def unbind(parameters: Mapping[str, Tensor]) -> list[dict[str, np.ndarray]]:
    """Return the parameters of each view of a batch, as the renderers take them."""
    arrays = {key: value.numpy() for key, value in parameters.items()}
    batch = len(next(iter(arrays.values())))
    return [{key: value[i] for key, value in arrays.items()} for i in range(batch)]


def orientation_of(to_tile: Tensor) -> Tensor:
    """Return which of the eight orientations axis-aligned maps have.

    Args:
        to_tile: axis-aligned maps, (B, 2, 3).

    Returns:
        int64 (B,): 4 if rows and columns of the crop are exchanged, then plus 1 if left and
        right and plus 2 if top and bottom are exchanged.
    """
    direction = to_tile[:, :, :2].sum(1)  # of an axis of the frame, + or -
    transposed = to_tile[:, 0, 0] == 0
    return 4 * transposed.long() + (direction[:, 0] < 0) + 2 * (direction[:, 1] < 0)


def _crop_of(to_tile: Tensor, size: Tensor) -> Tensor:
    """Return the rectangles (top, left, height, width) that frames cover on their tiles."""
    extent = (to_tile[:, :, :2] * size.flip(-1)[:, None].double()).sum(-1)  # x, y, with sign
    corner = to_tile[:, :, 2] + extent.clamp(max=0)
    return torch.cat([corner.flip(-1), extent.abs().flip(-1)], dim=-1).round().long()


def in_fractions(to_tile: Tensor, size: Tensor, tile_sizes: Tensor) -> Tensor:
    """Turn maps between pixels, float64 (B, 2, 3), into maps between fractions, float32.

    Args:
        to_tile: maps from a frame's pixels to the tile's.
        size: (height, width) of the frames in pixels, (B, 2).
        tile_sizes: (height, width) of the tiles in pixels, (B, 2).
    """
    frame = torch.nn.functional.pad(size.flip(-1).double(), (0, 1), value=1.)
    return (to_tile * frame[:, None] / tile_sizes.flip(-1)[:, :, None].double()).float()
