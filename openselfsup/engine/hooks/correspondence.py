"""A probe that needs no labels: do cells that show the same tissue find each other?"""

from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ... import distributed
from ...datasets.sources import build_source
from ...datasets.tiles import TileDataset
from ...errors import UserError
from ...evaluation.correspondence import correspondence, joined, summarize
from ...evaluation.label_free import alpha_req, rankme
from ...registry import HOOKS
from ...training.features import feature_maps
from ...values import Count, Range, Seed
from .probe import ProbeHook

#: What the two views of a tile undergo: what a pathologist would see through.
STEPS = dict(
    crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
    hflip=dict(type='HorizontalFlip', p=0.5),
    vflip=dict(type='VerticalFlip', p=0.5),
    turn=dict(type='QuarterTurn', p=1.0),
    jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8))


@HOOKS.register_module()
class CorrespondenceHook(ProbeHook):
    """Scores of two views of fixed tiles, without labels.

    ``probe_correspondence`` is the share of cells whose nearest cell of the other view, by
    features, is where geometry says (:mod:`openselfsup.evaluation.correspondence`);
    ``probe_correspondence_half_turn``, ``probe_correspondence_overlap_0.25_0.5`` and the like are
    of pairs that are turned so against each other, or share so much. The log says what a guess
    gets.
    ``probe_rankme`` and ``probe_alpha_req`` are of the pooled features of all views
    (:mod:`openselfsup.evaluation.label_free`). The best checkpoint is
    ``best_dense.pth``. The views are drawn once, so that all probes of all runs with the same
    settings see the same.

    Args:
        source: tiles (``type`` in SOURCES), labels are not needed; None for some of the run's own.
        interval, at_start, save_best, name: see :class:`ProbeHook`.
        tiles: how many tiles, evenly spaced.
        recipe: what both views undergo (``type`` in RECIPES), with maps to the tile; None for
            crops, flips, quarter turns and colour jitter at the size of the run's views.
        feature_map: which of the maps that the backbone returns has the cells; the last one
            is pooled in any case.
        batch_size: views of one forward pass.
        seed: draws the views.
        best_by: which score chooses the best checkpoint: the highest RankMe, which ranked
            checkpoints of ResNets best (docs/tried.md), or correspondence, or the α-ReQ that is
            closest to 1.

    Raises:
        UserError: the recipe leaves no map from view to tile, or the backbone returns no such
            feature map.
    """

    best_file = 'best_dense.pth'

    def __init__(self, source: dict | None = None, interval: Count = 10, tiles: Count = 256,
                 recipe: dict | None = None, feature_map: Annotated[int, Range(-99, 99)] = -1,
                 batch_size: Count = 64, at_start: bool = True, save_best: bool = True,
                 seed: Seed = 0,
                 best_by: Literal['correspondence', 'rankme', 'alpha_req'] = 'rankme',
                 name: str = ''):
        super().__init__(interval, at_start, save_best, name)
        self.source = build_source(source) if source is not None else None
        self.recipe, self.count, self.seed = recipe, tiles, seed
        self.feature_map, self.batch_size = feature_map, batch_size
        self.key = f'probe_{best_by}'

    def goodness(self, found: dict[str, float]) -> float:
        """Return the score that chooses; of α-ReQ, how close it is to 1."""
        value = found[self.key]
        return -abs(value - 1) if self.key == 'probe_alpha_req' else value

    def scale(self, found: dict[str, float]) -> float:
        """Return the score that chooses; of α-ReQ the 1 that is best."""
        return 1. if self.key == 'probe_alpha_req' else super().scale(found)

    def before_train(self, runner) -> None:
        """Draw the views."""
        super().before_train(runner)
        own = runner.dataset
        recipe = self.recipe or dict(type='ViewRecipe', size=own.recipes[0].size, steps=STEPS)
        data = TileDataset(self.source or own.source, recipe, n_views=2,
                           on_corrupt=own.on_corrupt if self.source is None else 'raise',
                           check=self.source is not None)
        if data.geometry == 'none':
            raise UserError('this recipe does not say where a view lies on its tile',
                            where='hooks.CorrespondenceHook.recipe',
                            expected='one without elastic, grid or optical distortion')
        offered = len(runner.algorithm.backbone.out_channels)
        if not -offered <= self.feature_map < offered:
            raise UserError(f'the backbone returns {offered} feature map(s), there is no '
                            f'{self.feature_map}', where='hooks.CorrespondenceHook.feature_map',
                            expected='one that model.backbone.out_indices asks for, or -1')
        if not distributed.is_main():
            return
        chosen = np.linspace(0, len(data) - 1, min(self.count, len(data))).round().astype(int)
        batch = data.batch(chosen.tolist(), torch.Generator().manual_seed(self.seed),
                           allocate=lambda shape: torch.empty(shape, dtype=torch.uint8))
        self.views = torch.stack(batch['views'], 1).flatten(0, 1)  # A and B in turn: 2N x 3 x S x S
        self.maps = batch['view_to_tile']  # N x 2 x 2 x 3

    def measure(self, runner) -> dict[str, float]:
        """Return the scores of the backbone."""
        normalize, pairs = runner.cfg.normalize, max(self.batch_size // 2, 1)
        batches = feature_maps(runner.backbone, self.views, 2 * pairs,
                               normalize['mean'], normalize['std'], runner.amp)
        found, pooled = [], list[Tensor]()
        for maps, to_tile in zip(batches, self.maps.split(pairs), strict=True):
            cells, to_tile = maps[self.feature_map].float(), to_tile.to(maps[-1].device)
            found.append(correspondence(cells[::2], cells[1::2], to_tile[:, 0], to_tile[:, 1]))
            pooled.append(maps[-1].float().mean((2, 3)).cpu())
        summary, features = summarize(joined(found)), torch.cat(pooled)
        scores = dict(probe_rankme=rankme(features), probe_alpha_req=alpha_req(features))
        if 'all' in summary:
            runner.logger.info('of %d cells that both views show, a guess finds %.3f',
                               summary['all']['cells'], summary['all']['chance'])
            if self.key == 'probe_correspondence':
                self.counted = int(summary['all']['cells'])
            scores['probe_correspondence'] = summary.pop('all')['score']
            scores |= {f'probe_correspondence_{name}': found['score']
                       for name, found in summary.items()}
        return scores
