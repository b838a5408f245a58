"""Two MoCo v2 views of tiles in memory, on one core."""

import importlib.util
from collections.abc import Callable, Iterator

import numpy as np
import torch

from openselfsup.views import ViewRecipe, render_opencv, unbind

from . import published
from .tiles import MOCO, demo_tiles
from .timing import Case, on_threads

BATCH = 64


def render_batch(tiles: list[np.ndarray], recipe: ViewRecipe, generator: torch.Generator,
                 views: int = 2) -> list[np.ndarray]:
    """Draw and render views as the loader's workers do, uint8 (B, S, S, 3) each."""
    sizes = torch.tensor([tile.shape[:2] for tile in tiles])
    out = []
    for _ in range(views):
        buffer = np.empty((len(tiles), *recipe.size, 3), np.uint8)
        drawn = unbind(recipe.draw(sizes, generator))
        for tile, parameters, slot in zip(tiles, drawn, buffer):
            render_opencv(tile, recipe, parameters, slot)
        out.append(buffer)
    return out


def view_cases() -> Iterator[Case]:
    """Yield the published augmentation at 224 px, without reading files."""
    tiles = demo_tiles()[:BATCH]
    images = [published.as_pil(tile) for tile in tiles]
    recipe, generator = ViewRecipe(224, MOCO), torch.Generator().manual_seed(0)
    pil = published.PILViews()
    yield Case('views', f'two MoCo v2 views of {len(tiles)} tiles, one core, with geometry',
               on_threads(1, lambda: render_batch(tiles, recipe, generator)),
               on_threads(1, lambda: [(pil(image), pil(image)) for image in images]),
               {name: on_threads(1, work) for name, work in _others(tiles, images).items()},
               items=len(tiles), unit='tiles/s', calls=1)


def _others(tiles: list[np.ndarray], images: list) -> dict[str, Callable[[], object]]:
    """Return other libraries' two views of the tiles, as far as they are installed."""
    found: dict[str, Callable[[], object]] = {}
    if importlib.util.find_spec('lightly'):
        from lightly.transforms import MoCoV2Transform
        transform = MoCoV2Transform(input_size=224, cj_strength=1.0, cj_bright=0.4,
                                    cj_contrast=0.4, cj_sat=0.4, cj_hue=0.1)
        found['lightly'] = lambda: [transform(image) for image in images]
    if importlib.util.find_spec('albumentations'):
        import albumentations as A
        compose = A.Compose([
            A.RandomResizedCrop(size=(224, 224), scale=(0.2, 1.0)),
            A.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), A.ToGray(p=0.2),
            A.GaussianBlur(sigma_limit=(0.1, 2.0), blur_limit=0, p=0.5),
            A.HorizontalFlip(p=0.5), A.Normalize()])
        found['albumentations'] = lambda: [(compose(image=t), compose(image=t)) for t in tiles]
    return found
