"""Per-sample pipelines of torchvision v2 transforms, in the place of a recipe.

Slower than a recipe, and its map is not known before the view is rendered, but anything that
torchvision offers can be used. Points of the tile travel along with its pixels; the map is
solved from where they end, and refused if no affine map explains them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..values import Side
from .draws import Draws
from .geometry import invert, is_axis_aligned
from .one_generator import DrawFrom
from .steps.base import GEOMETRIES, Geometry

TOLERANCE = 0.01  # pixels of the view that a point may lie off the affine map


def build_transform(transform: Mapping[str, Any] | nn.Module) -> nn.Module:
    """Return a v2 transform from a dict of its class name, under 'type', and its arguments.

    Raises:
        ValueError: torchvision has no such transform, or the arguments do not suit it.
    """
    if isinstance(transform, nn.Module):
        return transform
    arguments = dict(transform)
    name = arguments.pop('type', None)
    if isinstance(how := arguments.get('interpolation'), str):  # torchvision 0.24 takes no string
        if how not in (known := [mode.value for mode in v2.InterpolationMode]):
            raise ValueError(f"{name}: no interpolation is called '{how}'; there are "
                             + ', '.join(known))
        arguments['interpolation'] = v2.InterpolationMode(how)
    cls = getattr(v2, str(name), None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f'torchvision.transforms.v2 has no transform {name!r}')
    if 'transforms' in arguments:
        arguments['transforms'] = [build_transform(t) for t in arguments['transforms']]
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ValueError(f'{name}: {error}') from None


def _has_lambda(transform: nn.Module) -> bool:
    return (isinstance(transform, v2.Lambda)
            or any(map(_has_lambda, getattr(transform, 'transforms', ()))))


def _no_map(why: str) -> ValueError:
    return ValueError(f'no affine map leads from this view to its tile: {why}; for such '
                      "transforms set geometry='none'")


class TorchvisionPipeline:
    """Views by torchvision v2 transforms.

    Args:
        size: side of the view in pixels, or (height, width): what the transforms must give.
        transforms: v2 transforms in their order, built or as dicts with a 'type'. They get
            an RGB image, uint8 (3, H, W), and must return one. They draw random numbers with
            torch, as all of torchvision's do: numpy's and Python's know no seed of a view.
        geometry: what the transforms may do to the map from view to tile: 'axis_aligned',
            'affine', or 'none' to use no map at all. Views that do more are refused.

    Raises:
        ValueError: ``geometry`` is none of these, or a transform cannot be built.
    """

    def __init__(self, size: Side, transforms: Sequence,
                 geometry: Geometry = 'affine'):
        if geometry not in GEOMETRIES:
            raise ValueError(f'geometry must be one of {", ".join(GEOMETRIES)}, '
                             f'not {geometry!r}')
        height, width = (size, size) if isinstance(size, int) else size
        self.size = height, width
        self.geometry = geometry
        self.transforms = [build_transform(t) for t in transforms]
        if geometry != 'none' and any(map(_has_lambda, self.transforms)):
            raise ValueError("what a Lambda does to an image is unknown: write a v2.Transform, "
                             "or set geometry='none'")

    @property
    def breaking_steps(self) -> dict[str, str]:
        """As of a recipe: what leaves no affine map from view to tile."""
        return {'transforms': type(self).__name__} if self.geometry == 'none' else {}

    def draw(self, tile_sizes: Tensor, generator: Generator | Draws) -> dict[str, Tensor]:
        """Draw a seed for one view of each tile; see :meth:`.ViewRecipe.draw`."""
        return {'seed': Draws.of(generator, len(tile_sizes)).randint(2 ** 53)}

    def render(self, tile: np.ndarray, parameters: Mapping[str, Any],
               out: np.ndarray) -> np.ndarray | None:
        """Render one view of a tile into ``out`` and return its map.

        Args:
            tile: RGB image, uint8 (H, W, 3).
            parameters: what :meth:`draw` drew for this view.
            out: where the view goes, uint8 (*size, 3).

        Returns:
            The map from view to tile, float32 (2, 3), see :mod:`.geometry`; None for
            geometry 'none'.

        Raises:
            ValueError: the transforms gave no view of that size, or one whose map is not of
                the declared geometry.
        """
        height, width = tile.shape[:2]
        image = tv_tensors.Image(torch.from_numpy(tile.copy()).permute(2, 0, 1))
        # Key points would do, but torchvision flips them by pixel index and resizes them by
        # pixel edge; boxes without extent, never cut to the canvas, are points done right.
        at = torch.cartesian_prod(torch.linspace(0, 1, 4), torch.linspace(0, 1, 4))
        points = (at * torch.tensor([width, height])).repeat(1, 2)
        boxes = tv_tensors.BoundingBoxes(points, format='XYXY', canvas_size=(height, width),
                                         clamping_mode=None)
        with DrawFrom(Generator().manual_seed(int(parameters['seed']))):
            if self.geometry == 'none':
                view, moved = nn.Sequential(*self.transforms)(image), None
            else:
                view, moved = self._run(image, boxes)
        if view.dtype != torch.uint8 or tuple(view.shape) != (3, *self.size):
            raise ValueError(f'the transforms gave {view.dtype} of shape {tuple(view.shape)}, '
                             f'not uint8 of shape {(3, *self.size)}')
        np.copyto(out, view.permute(1, 2, 0).numpy())
        if moved is None:
            return None
        middle = moved.as_subclass(Tensor).view(-1, 2, 2).mean(1)
        return self._solve(at.double(), middle.double()).float().numpy()

    def _run(self, image: Tensor, boxes: tv_tensors.BoundingBoxes
             ) -> tuple[Tensor, tv_tensors.BoundingBoxes]:
        for transform in self.transforms:
            name = type(transform).__name__
            try:
                image, moved = transform(image, boxes)
                (height, width), canvas = image.shape[-2:], tuple(moved.canvas_size)
            except (AttributeError, IndexError, TypeError, ValueError) as error:
                transform(image)  # raises what is wrong where it is not the points
                raise _no_map(f'{name} cannot move points ({error})') from None
            if (height, width) != canvas or len(moved) != len(boxes):
                raise _no_map(f'after {name} the image has {height} x {width} px, and {len(moved)} '
                              f'of {len(boxes)} points lie on {canvas[0]} x {canvas[1]} px')
            boxes = moved
        return image, boxes

    def _solve(self, at: Tensor, moved: Tensor) -> Tensor:
        """Return the map (2, 3) from view to tile.

        Args:
            at: points of the tile in fractions, (N, 2).
            moved: the same points on the view in pixels, (N, 2).
        """
        given = torch.nn.functional.pad(at, (0, 1), value=1.)
        # Not lstsq, nor a product: their last bit may depend on where the numbers lie in memory.
        inverse = torch.linalg.pinv(given)  # 3 N
        tile_to_view = (inverse[:, :, None] * moved).sum(1)  # 3 2
        off = (given @ tile_to_view - moved).norm(dim=1).max().item()
        if off > TOLERANCE:
            raise _no_map(f'points lie up to {off:.2f} pixels off')
        extent = torch.tensor(self.size[::-1], dtype=torch.float64)
        view_to_tile = invert((tile_to_view / extent).T)
        if self.geometry == 'axis_aligned' and not is_axis_aligned(view_to_tile, 1e-4):
            raise ValueError("this view is turned or sheared against its tile; for such "
                             "transforms set geometry='affine'")
        return view_to_tile
