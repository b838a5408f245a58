"""Views of a whole batch with torch, on any device: rendered where the model is.

A crop, its antialiased resize and its orientation are two matrix products with each tile,
one along its rows and one along its columns, and so is a Gaussian blur. The matrices are
made on the device from a few numbers for each view, which cross in one copy; nothing comes
back. The steps between follow PIL's arithmetic with the numbers that the recipe drew for
the CPU renderer, in the recipe's order. Every step is computed for all views, also each of
those that a OneOf chooses from, and changes those that it was drawn for.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recipe import ViewRecipe
from ..steps import GeometricStep, ImageStep, OneOf, Scope
from ..steps.base import Interpolation
from ..steps.pixels import matrix_dtype


def missing_steps(recipe: object) -> list[str]:
    """Return the names of the steps that cannot be rendered here, or of the whole recipe."""
    if not isinstance(recipe, ViewRecipe):
        return [type(recipe).__name__]
    return [name for name, step in _single_steps(_image_steps(recipe))
            if not step.has_rendering('torch')]


def _image_steps(recipe: ViewRecipe) -> list[tuple[str, ImageStep]]:
    return [*recipe.before_resize, *recipe.after_resize]


def _children(name: str, step: OneOf) -> list[tuple[str, ImageStep]]:
    return [(f'{name}.{child}', step) for child, step in step.named_steps.items()]


def _single_steps(steps: Iterable[tuple[str, ImageStep]]) -> list[tuple[str, ImageStep]]:
    """Put the steps that a :class:`OneOf` chooses from in its place, one after the other."""
    single = []
    for name, step in steps:
        single += (_single_steps(_children(name, step)) if isinstance(step, OneOf)
                   else [(name, step)])
    return single


def _single_draws(steps: Iterable[tuple[str, ImageStep]], parameters: Mapping[str, Tensor]
                  ) -> Mapping[str, Tensor]:
    """Add which views undergo each of the steps that a :class:`OneOf` chooses from."""
    for name, step in steps:
        if isinstance(step, OneOf):
            children = _children(name, step)
            apply, choice = parameters[f'{name}.apply'], parameters[f'{name}.choice']
            parameters = {**parameters, **{f'{child}.apply': apply & (choice == i)
                                           for i, (child, _) in enumerate(children)}}
            parameters = _single_draws(children, parameters)
    return parameters


class TorchRenderer:
    """Renders batches of one recipe.

    Args:
        recipe: the recipe whose draws are rendered.
        compile: fuse the matrices' making and each run of colour steps with torch.compile.
            On a GPU that is worth several times; it needs a compiler there.

    Raises:
        ValueError: the recipe has steps that only the CPU renderer knows.
    """

    def __init__(self, recipe: ViewRecipe, compile: bool = False):
        if missing := missing_steps(recipe):
            raise ValueError(f"{', '.join(missing)} cannot be rendered by torch, only by the CPU "
                             'renderer')
        self.recipe = recipe
        self._turns = any(isinstance(step, GeometricStep) and step.turns
                          for step in recipe.steps)
        self._stages = [_Stage(list(steps), compile and fuses) for fuses, steps in
                        itertools.groupby(_single_steps(_image_steps(recipe)),
                                          key=lambda entry: entry[1].fuses)]
        self._resize_matrix = (torch.compile(resize_matrix, dynamic=False) if compile
                               else resize_matrix)

    @torch.no_grad()
    def __call__(self, tiles: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Render one view of every tile.

        Args:
            tiles: uint8 (B, 3, H, W) on any device, best channels_last in memory.
            parameters: what the recipe drew for them, on the CPU.

        Returns:
            float32 (B, 3, *size) of whole numbers in [0, 255], on the tiles' device.

        Raises:
            ValueError: ``tiles`` is none of the above.
        """
        if tiles.dtype != torch.uint8 or tiles.ndim != 4 or tiles.shape[1] != 3:
            raise ValueError(f'tiles are uint8 (B, 3, H, W), not {tiles.dtype} '
                             f'{tuple(tiles.shape)}')
        parameters = _single_draws(_image_steps(self.recipe), parameters)
        prepared = [_geometry(parameters, self.recipe)]
        for stage in self._stages:
            prepared += stage.prepare(parameters)
        numbers = iter(_to_device(prepared, tiles.device))
        with torch.autocast(tiles.device.type, enabled=False):
            view = self._place(tiles, next(numbers))
            for stage in self._stages:
                view = stage.render(view, list(itertools.islice(numbers, len(stage.steps))))
        return view

    def _place(self, tiles: Tensor, geometry: Tensor) -> Tensor:
        """Cut, orient and resize: PIL's filters, antialiased where it shrinks."""
        pixels = tiles.permute(0, 2, 3, 1).to(matrix_dtype(tiles.device))  # B H W 3
        rows, columns = self.recipe.size
        if self.recipe.is_warped:
            pixels = _warp(pixels, geometry[:, :6].view(-1, 2, 3))
            corner, extent = torch.zeros_like(geometry[:, :2]), geometry[:, 6:8]
            mirrored = torch.zeros_like(corner, dtype=torch.bool)
            transposed = mirrored[:, 0]
        else:
            corner, extent = geometry[:, 0:2], geometry[:, 2:4]
            transposed, mirrored = geometry[:, 4] > 0, geometry[:, 5:7] > 0  # along y, x of tile
        along = torch.where(transposed, columns, rows), torch.where(transposed, rows, columns)
        length = max(rows, columns)  # of both matrices: what a view has less is cut off below
        lengths = (length, length) if self._turns else (rows, columns)
        by_row, by_column = (
            self._resize_matrix(corner[:, axis], extent[:, axis], mirrored[:, axis], along[axis],
                                lengths[axis], pixels.shape[1 + axis],
                                self.recipe.interpolation).to(pixels.dtype)
            for axis in (0, 1))
        batch, _, width, _ = pixels.shape
        view = (by_row @ pixels.flatten(2)).view(batch, lengths[0], width, 3)
        if self.recipe.interpolation == 'bicubic':
            view = view.clamp(0, 255)  # PIL has bytes between the two
        view = view.permute(0, 3, 1, 2).reshape(batch, -1, width) @ by_column.mT
        view = view.view(batch, 3, *lengths)
        if self._turns and not self.recipe.is_warped:
            view = torch.where(transposed[:, None, None, None], view.mT, view)
        view = view[..., :rows, :columns].float().round()
        return view.clamp(0, 255) if self.recipe.interpolation == 'bicubic' else view


class _Stage:
    """A run of steps that torch.compile may fuse, or of such that it may not."""

    def __init__(self, steps: list[tuple[str, ImageStep]], compile: bool):
        self.steps = steps
        self.render: Callable[[Tensor, list[Tensor]], Tensor] = (
            torch.compile(self._chain, dynamic=False) if compile else self._chain)

    def prepare(self, parameters: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the numbers of each step, (B, n), on the CPU."""
        return [step.prepare_torch(Scope(parameters, f'{name}.')) for name, step in self.steps]

    def _chain(self, view: Tensor, numbers: list[Tensor]) -> Tensor:
        for (_, step), drawn in zip(self.steps, numbers):
            view = step.render_torch(view, drawn)
        return view


def _geometry(parameters: Mapping[str, Tensor], recipe: ViewRecipe) -> Tensor:
    """Return what places the views, (B, 8) or (B, 7), on the CPU."""
    if recipe.is_warped:
        return torch.cat([parameters['frame_to_tile'].flatten(1), parameters['frame_size']], 1)
    orientation = parameters['orientation']
    transposed = orientation >= 4
    by_view = torch.stack([orientation & 2, orientation & 1], 1) > 0  # along y and x of the view
    by_tile = torch.where(transposed[:, None], by_view.flip(1), by_view)
    return torch.cat([parameters['crop'], transposed[:, None], by_tile], 1)


def _to_device(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """Move tensors (B, n) as float32 in one copy, from page-locked memory for a GPU."""
    together = torch.cat([t.to(torch.float32) for t in tensors], 1)
    if device.type == 'cuda':
        together = together.pin_memory()
    return list(together.to(device, non_blocking=True).split([t.shape[1] for t in tensors], 1))


def resize_matrix(start: Tensor, extent: Tensor, mirrored: Tensor, along: Tensor, length: int,
                  pixels: int, interpolation: Interpolation = 'bilinear') -> Tensor:
    """Return what turns a line of a tile into a line of the view.

    Args:
        start: first pixel of the crop, (B,).
        extent: pixels of the crop, (B,).
        mirrored: whether the view runs backwards, (B,).
        along: pixels of the view along this line, (B,).
        length: rows of the matrix; those beyond ``along`` mean nothing.
        pixels: pixels of the tile along this line.
        interpolation: 'bilinear' for a triangle, 'bicubic' for Keys' cubic of a = -1/2.

    Returns:
        float32 (B, length, pixels), rows of sum 1: PIL's filter over the crop's own pixels, as
        wide as a pixel of the view where this is the wider.
    """
    scale = extent / along
    place = torch.arange(length, device=start.device)
    place = torch.where(mirrored[:, None], along[:, None] - 1 - place, place) + 0.5  # B L
    middle = start[:, None] + place * scale[:, None]
    pixel = torch.arange(pixels, device=start.device) + 0.5
    distance = (pixel - middle[..., None]).abs()  # B L pixels
    distance = distance / scale.clamp(min=1)[:, None, None]
    if interpolation == 'bilinear':
        weight = (1 - distance).clamp(min=0)
    else:  # Keys 1981, eq. 4
        near = (1.5 * distance - 2.5) * distance ** 2 + 1
        far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
        weight = torch.where(distance < 1, near, far * (distance < 2))
    inside = (pixel > start[:, None]) & (pixel < (start + extent)[:, None])
    weight = weight * inside[:, None]
    return weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)


def _warp(pixels: Tensor, frame_to_tile: Tensor) -> Tensor:
    """Return frames at the tile's resolution, mirrored beyond its edges.

    Args:
        pixels: tiles (B, H, W, 3).
        frame_to_tile: maps between pixels, (B, 2, 3).

    Returns:
        (B, L, L, 3), L the longer side of a tile; a frame smaller than that lies at the top
        left.
    """
    height, width = pixels.shape[1:3]
    centres = torch.arange(max(height, width), device=pixels.device) + 0.5
    along_x, along_y, origin = frame_to_tile[:, None, None].unbind(-1)  # B 1 1 2 each
    at = along_x * centres[:, None] + along_y * centres[:, None, None] + origin  # B L L 2
    fractions = at / torch.tensor([width, height], device=pixels.device)
    frames = F.grid_sample(pixels.permute(0, 3, 1, 2).float(), fractions * 2 - 1,
                           padding_mode='reflection', align_corners=False)
    return frames.round().permute(0, 2, 3, 1).to(pixels.dtype)
