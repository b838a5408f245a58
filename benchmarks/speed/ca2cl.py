"""CA2CL: its strong view against the reference renderer, its step against SimCLR's."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from openselfsup.engine.config import load_config
from openselfsup.registry import ALGORITHMS
from openselfsup.training.optimizers import build_optimizer
from openselfsup.training.precision import resolve
from openselfsup.training.preprocessor import Preprocessor
from openselfsup.training.step import TrainStep
from openselfsup.views import ViewRecipe, render_opencv, render_pil, unbind

from .timing import Case

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / 'configs/CA2CL/r18_bs1792_ep100.py'
TILES, BATCH, SIZE = 32, 32, 224


def strong_view_cases() -> Iterator[Case]:
    """Yield the strong view of real tiles, ours against PIL and numpy."""
    import cv2
    paths = sorted((REPO / 'data/demo').glob('*/**/*.[pj][np]g'))[:TILES]
    tiles = [cv2.imread(str(path))[..., ::-1].copy() for path in paths]
    settings = dict(load_config(CONFIG).dataset.recipe.strong)
    recipe = ViewRecipe(settings['size'], settings['steps'])
    generator = torch.Generator().manual_seed(0)
    out = np.empty((*recipe.size, 3), np.uint8)
    parameters = unbind(recipe.draw(torch.tensor([t.shape[:2] for t in tiles]), generator))

    def render(renderer) -> None:
        for tile, drawn in zip(tiles, parameters):
            renderer(tile, recipe, drawn, out)

    yield Case('strong_view', f'the strong view of CA2CL, {len(tiles)} tiles of 224 px',
               lambda: render(render_opencv), lambda: render(render_pil), items=len(tiles),
               unit='tiles/s', calls=1)


def ca2cl_step_cases() -> Iterator[Case]:
    """Yield SimCLR's step against CA2CL's, both ours: the ratio is CA2CL's extra cost."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    views = [torch.randint(0, 256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8,
                           generator=generator).permute(0, 3, 1, 2) for _ in range(2)]
    steps = {}
    for name in ('SimCLR', 'CA2CL'):
        cfg = load_config(REPO / f'configs/{name}/r18_bs1792_ep100.py')
        model = ALGORITHMS.build(cfg.model).to(memory_format=torch.channels_last).train()
        optimizer = build_optimizer(model, cfg.optimizer, 1e-3)
        steps[name] = TrainStep(model, Preprocessor(**cfg.normalize), optimizer,
                                resolve('auto', torch.device('cpu')))
    batch = dict(views=views, view_to_tile=None)
    yield Case('ca2cl_step', f"SimCLR's step against CA2CL's, ResNet-18, {BATCH} pairs of {SIZE} "
                             'px, channels_last',
               lambda: steps['SimCLR'](iter([batch]), 1, 1e-3),
               lambda: steps['CA2CL'](iter([batch]), 1, 1e-3), items=BATCH, unit='pairs/s', calls=1)
