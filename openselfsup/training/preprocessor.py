"""From a batch of the loader to what an algorithm takes: on the device, rendered, normalised."""

import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..datasets import TileDataset
from ..errors import UserError
from ..views import TorchRenderer, ViewRecipe, missing_steps
from .normalization import Normalize


class Preprocessor(nn.Module):
    """Move uint8 images to the device, render views there if need be, and normalise them.

    Moving uint8 costs a quarter of moving floats, so nothing is converted before.

    Args:
        mean: channel means of values in [0, 1].
        std: channel standard deviations of values in [0, 1].
        channels_last: memory format of the float views.
        recipes: the recipe of each view, for batches of raw tiles.
        compile: render views with torch.compile.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels_last: bool = True,
                 recipes: Sequence[ViewRecipe] = (), compile: bool = False):
        super().__init__()
        self.normalize = Normalize(mean, std, channels_last)
        renderers = {id(recipe): TorchRenderer(recipe, compile) for recipe in recipes}
        self.renderers = [renderers[id(recipe)] for recipe in recipes]

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return self.normalize.scale.device

    def forward(self, batch: dict) -> tuple[list[Tensor], Tensor | None]:
        """Return the views, V float tensors [B, 3, S, S], and view_to_tile [B, V, 2, 3] or None.

        Args:
            batch: ``views`` (V uint8 tensors [B, 3, S, S]) and ``view_to_tile``, or ``tiles``
                (uint8 [B, 3, H, W]) and ``draw`` (V dicts of parameters on the CPU).
        """
        device = self.device
        maps: Tensor | None
        if 'tiles' in batch:
            tiles = batch['tiles'].to(device, non_blocking=True)
            views = [self.normalize(render(tiles, draw))
                     for render, draw in zip(self.renderers, batch['draw'], strict=True)]
            maps = torch.stack([draw['view_to_tile'] for draw in batch['draw']], 1)
        else:
            views = [self.normalize(view) for view in batch['views']]
            maps = batch.get('view_to_tile')
        return views, None if maps is None else maps.to(device, non_blocking=True)


def choose_render(wanted: str, dataset: TileDataset, device: torch.device) -> str:
    """Return where views are rendered, 'worker' or 'device'.

    Args:
        wanted: 'auto', 'worker' or 'device'. 'auto' is the device if that is a GPU, all steps
            can be rendered there and all tiles are known to have one size.
        dataset: the tiles and their recipes.
        device: where the model is.

    Raises:
        UserError: 'device' is wanted, but steps or tiles do not allow it.
    """
    if wanted == 'worker' or wanted == 'auto' and device.type != 'cuda':
        return 'worker'
    missing = list(dict.fromkeys(
        f'{name} of {path}' for path, recipe in zip(dataset.recipe_paths, dataset.recipes)
        for name in missing_steps(recipe)))
    if not missing and dataset.source.tile_size is not None:
        return 'device'
    if wanted == 'auto':
        return 'worker'
    if missing:
        raise UserError(f"{', '.join(missing)} cannot be rendered on the device",
                        where='render', expected="render='worker', or a recipe without them")
    raise UserError('these tiles are not all of one size', where='render',
                    expected="render='worker', or tiles packed with `openselfsup pack --size`")


def can_compile(device: torch.device) -> bool:
    """Return whether rendering can be compiled for ``device``: a GPU and Triton."""
    return device.type == 'cuda' and importlib.util.find_spec('triton') is not None
