"""VICRegL: self-supervised learning of local visual features (arXiv 2210.01571)."""

import inspect
from collections import defaultdict

import torch
from torch import Tensor, nn

from ... import distributed
from ...checkpoints import channels_of
from ...errors import UserError
from ...registry import ALGORITHMS, BACKBONES, NECKS
from ...values import Count, Fraction, NotNegative, Positive
from ...views import cell_centres, determinant
from .. import health
from ..heads.classification import accuracy
from ..losses import covariance_term, nearest_cells, variance_term, vicreg
from ..losses.vicreg import Terms
from ..method import BaseMethod
from ..parts import at_least_float32, built, built_on, cells, check_maps

LARGE = 2  # views that are compared with all others
_ROUNDING = 2 ** -21  # of places on the tile that float32 maps tell


@ALGORITHMS.register_module()
class VICRegL(BaseMethod):
    """VICReg of whole views, and of cells that lie near each other or look alike.

    The first two views are large, further ones may be smaller (multi-crop); each of the two is
    compared with all others. Grids may have any number of cells. Places are compared in tile
    fractions by ``view_to_tile``, so a flipped view has a flipped grid; the published default,
    ``--no-flip-grid 1``, pairs mirrored places whenever one view of a pair is flipped.

    Args:
        backbone: config of a backbone, or a module; its last feature map gives the cells.
        projector: config of an :class:`Expander` of pooled features, or a module; not built at
            α = 0.
        maps_projector: config of an :class:`Expander` of cells, or a module; not built at α = 1.
        alpha: weight α of the loss of whole views; that of cells has 1 - α.
        inv_coeff, var_coeff, cov_coeff: coefficients of invariance, variance and covariance.
        num_matches: how many cells with the nearest counterpart are kept, of the first view of a
            pair and of the second; all of a view that has fewer.
        l2_all_matches: whether all cells are paired by features, not only ``num_matches``.
        match_radius: pairs by location that lie farther apart than so many sides of a cell, as
            where views hardly overlap, are left out of the invariance; None keeps them (published).
        num_classes: classes of a linear classifier on the features of the first view, whose
            gradient stops at them; it needs labels. None for no classifier.

    Raises:
        UserError: a needed expander is missing, or numbers are impossible.
    """

    needs_geometry = True
    takes_views = LARGE, None
    can_shard = True

    def __init__(self, backbone: dict | nn.Module, projector: dict | nn.Module | None = None,
                 maps_projector: dict | nn.Module | None = None, alpha: Fraction = 0.75,
                 inv_coeff: NotNegative = 25.0, var_coeff: NotNegative = 25.0,
                 cov_coeff: NotNegative = 1.0, num_matches: tuple[Count, Count] = (20, 4),
                 l2_all_matches: bool = True, match_radius: Positive | None = None,
                 num_classes: Count | None = None):
        super().__init__()
        if not 0 <= alpha <= 1:
            raise UserError(f'alpha is {alpha}', where='model.alpha',
                            expected='a number from 0 to 1')
        self.backbone = built(backbone, BACKBONES)
        self.projector = self._expander('projector', projector if alpha > 0 else None, alpha > 0)
        self.maps_projector = self._expander(
            'maps_projector', maps_projector if alpha < 1 else None, alpha < 1)
        self.alpha, self.coefficients = alpha, (inv_coeff, var_coeff, cov_coeff)
        self.num_matches, self.l2_all_matches = tuple(num_matches), l2_all_matches
        self.match_radius, self.num_classes = match_radius, num_classes
        self.needs_geometry = alpha < 1
        self.classifier = None
        if num_classes is not None:
            self.classifier = nn.Linear(channels_of(self.backbone)[-1], num_classes)
            self.batch_keys = ('label',)

    def _expander(self, name: str, part: dict | nn.Module | None,
                  needed: bool) -> nn.Module | None:
        expander = built_on(part, NECKS, self.backbone)
        if expander is None and needed:
            raise UserError(f'alpha gives weight to a loss without its {name}',
                            where=f'model.{name}', expected="dict(type='Expander', ...)")
        if expander is not None and 'maps' in inspect.signature(expander.forward).parameters:
            raise UserError(f'{type(expander).__name__} takes feature maps, the {name} vectors',
                            where=f'model.{name}', expected="dict(type='Expander', ...)")
        offered, wanted = channels_of(self.backbone)[-1], getattr(expander, 'in_channels', None)
        if wanted is not None and wanted != offered:
            raise UserError(f'{name} takes {wanted} channels, the backbone gives {offered}',
                            where=f'model.{name}.in_channels', expected=str(offered))
        return expander

    def set_data(self, length: int, classes: list[str] | None) -> None:
        """Refuse tiles of another number of classes than the classifier has.

        Raises:
            UserError: the numbers differ.
        """
        if self.classifier is not None and classes and len(classes) != self.num_classes:
            raise UserError(f'the tiles have {len(classes)} classes, the classifier '
                            f'{self.num_classes}', where='model.num_classes',
                            expected=str(len(classes)))

    def forward(self, views: list[Tensor], view_to_tile: Tensor | None = None,
                label: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: two tensors of shape (B, 3, S, S), and further ones that are not larger.
            view_to_tile: float32 tensor of shape (B, V, 2, 3), maps from view to tile fractions;
                not used at α = 1.
            label: int64 tensor of shape (B,), classes; for the classifier.
        """
        self._check(views, view_to_tile)
        pooled, embeddings, grids, shapes = [], [], [], []
        for view in views:
            maps = self.backbone(view)[-1]  # B x C x h x w
            pooled.append(maps.mean((2, 3)))
            shapes.append(tuple(maps.shape[-2:]))
            if self.projector is not None:
                embeddings.append(self.projector(pooled[-1]))  # B x D
            if self.maps_projector is not None:
                grids.append(self.maps_projector(cells(maps)))  # B x h·w x D
        outputs: dict[str, Tensor] = {}
        with torch.autocast(views[0].device.type, enabled=False):
            if embeddings:
                embeddings = list(map(at_least_float32, embeddings))
                self._add(outputs, 'global', self.alpha, self.global_terms(embeddings))
            if grids:
                assert view_to_tile is not None, 'checked'
                grids = list(map(at_least_float32, grids))
                terms, near = self.local_terms(grids, view_to_tile, shapes)
                self._add(outputs, 'local', 1 - self.alpha, terms)
                outputs['matched_fraction'] = near.detach()
        if self.classifier is not None:
            assert label is not None, 'asked for'
            scores = at_least_float32(self.classifier(pooled[0].detach()))
            outputs['loss_classifier'] = nn.functional.cross_entropy(scores, label)
            outputs['acc_classifier'] = accuracy(scores, label)
        self.features = (embeddings[0] if embeddings else grids[0].mean(1)).detach()
        outputs['feature_std'] = health.feature_std(self.features)
        return outputs

    def _check(self, views: list[Tensor], view_to_tile: Tensor | None) -> None:
        if self.needs_geometry:
            check_maps(view_to_tile, self)
        if len(views[0]) * distributed.world_size() < 2:
            raise UserError('one tile has no variance over the batch', where='global_batch_size',
                            expected='at least 2 tiles in a forward pass of all processes')
        sizes = [tuple(view.shape[-2:]) for view in views]
        height, width = map(min, zip(*sizes[:LARGE]))
        if len(sizes) < LARGE or any(h > height or w > width for h, w in sizes[LARGE:]):
            raise UserError('the views have ' + ', '.join(f'{h} x {w}' for h, w in sizes)
                            + ' pixels', where='dataset.recipe',
                            expected='two large views first, and none larger after them')

    def _add(self, outputs: dict[str, Tensor], level: str, weight: float, terms: Terms) -> None:
        """Add a level's loss, times its weight, and its three terms with their coefficients."""
        terms = Terms(*(c * term for c, term in zip(self.coefficients, terms)))
        outputs[f'loss_{level}'] = weight * (terms.invariance + terms.variance + terms.covariance)
        for name, term in zip(('inv', 'var', 'cov'), terms):
            outputs[f'{level}_{name}'] = term.detach()

    def global_terms(self, z: list[Tensor]) -> Terms:
        """Compare whole views: embeddings (B, D) of each of the V views (sec. 3.1)."""
        everyone = [distributed.all_gather_with_grad(x) for x in z]
        pairs = [(i, j) for i in range(LARGE) for j in range(len(z)) if i != j]
        return Terms(*(torch.stack(values).mean() for values in (
            [(z[i] - z[j]).square().mean() for i, j in pairs],
            [variance_term(x.var(0)) for x in everyone],
            [covariance_term(x) for x in everyone])))

    def local_terms(self, grids: list[Tensor], maps: Tensor, shapes: list[tuple[int, int]]
                    ) -> tuple[Terms, Tensor]:
        """Compare cells by location and by features (sec. 3.2).

        For each ordered pair of views, of which the first is large, both ways of pairing count
        once, each as the mean of its two directions. What several pairs ask for is computed once.

        Args:
            grids: embeddings of cells (B, N, D) of each of the V views, whose N may differ.
            maps: tensor of shape (B, V, 2, 3).
            shapes: (rows, columns) of the grids.

        Returns:
            The terms, and the share of pairs by location that lie within ``match_radius``, or
            within one side of a cell if that is None.
        """
        ways: defaultdict[tuple[str, int, int, int | None], float] = defaultdict(float)
        share = 1 / (2 * LARGE * (len(grids) - 1))
        for i in range(LARGE):
            for j in range(len(grids)):
                if i == j:
                    continue
                for a, b, count in (i, j, self.num_matches[0]), (j, i, self.num_matches[1]):
                    ways['location', a, b, self.location_count(count)] += share
                    ways['features', a, b, None if self.l2_all_matches else count] += share
        total, near = Terms(*grids[0].new_zeros(3)), grids[0].new_zeros(())
        for (kind, a, b, kept), weight in ways.items():
            if kind == 'features':
                terms = self.paired(grids[a], grids[b], *nearest_cells(
                    torch.cdist(grids[a].detach(), grids[b].detach()), kept))
            else:
                terms, within = self.location_terms(
                    grids[a], grids[b], maps[:, a], maps[:, b], shapes[a], shapes[b], kept)
                near = near + weight * within
            total = Terms(*(t + weight * term for t, term in zip(total, terms)))
        return total, near

    def location_count(self, count: int) -> int | None:
        """Return how many cells are paired by location in a direction that may have ``count``."""
        return count

    def location_terms(self, x: Tensor, y: Tensor, x_to_tile: Tensor, y_to_tile: Tensor,
                       x_grid: tuple[int, int], y_grid: tuple[int, int], count: int | None
                       ) -> tuple[Terms, Tensor]:
        """Compare cells x (B, N, D) of a view with those of another that lie nearest to them.

        Returns:
            The terms, and the share of pairs that count in the invariance.
        """
        x_to_tile, y_to_tile = x_to_tile.double(), y_to_tile.double()
        centres = [cell_centres(maps, grid).flatten(1, 2) for maps, grid in
                   ((x_to_tile, x_grid), (y_to_tile, y_grid))]  # B x N x 2
        distances = (centres[0][:, :, None] - centres[1][:, None]).square().sum(-1).sqrt()
        own, other = nearest_cells(distances, count, _ROUNDING)
        apart = distances.amin(-1).gather(1, own)
        side = torch.stack([(determinant(maps).abs() / (grid[0] * grid[1])).sqrt() for maps, grid
                            in ((x_to_tile, x_grid), (y_to_tile, y_grid))]).mean(0)
        within = (apart <= (self.match_radius or 1.) * side[:, None]).to(x.dtype)
        return self.paired(x, y, own, other,
                           None if self.match_radius is None else within), within.mean()

    def paired(self, x: Tensor, y: Tensor, own: Tensor, other: Tensor,
               weights: Tensor | None = None) -> Terms:
        """Compare cells of these numbers (B, n) of x (B, N, D) and of y (B, M, D)."""
        x, y = (grid.gather(1, numbers[..., None].expand(-1, -1, grid.shape[-1]))
                for grid, numbers in ((x, own), (y, other)))  # B x n x D
        all_x, all_y = distributed.all_gather_with_grad(torch.stack([x, y], 1)).unbind(1)
        return vicreg(x, y, (all_x, all_y), weights)
