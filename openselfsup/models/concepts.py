"""Concepts: cells of a tile that look alike, found in one view and pooled in others (ConCL)."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .. import distributed
from ..errors import UserError, nearest
from ..views import compose, invert, match_cells
from . import health
from .losses import info_nce
from .memories import Queue, cell_kmeans
from .method import Geometry
from .parts import at_least_float32, cells, grid_of, normalize, weighted_mean

LabelMaps = Literal['rounded', 'exact']
LABEL_MAPS = get_args(LabelMaps)
ROUNDING = 1e-4  # of float32 maps, in cells of the reference
SLIVER = 1e-3  # of a view's cell: less of it is nothing that the reference shows

Project = Callable[[Tensor], Tensor]


class Concepts(nn.Module):
    """The concepts of a batch of tiles, their contrast, and the queue of their keys.

    Args:
        num_concepts: number K of clusters of a tile.
        queue_len: number of concepts in the queue.
        feat_dim: size D of the projection.
        temperature: T of the loss.
        kmeans_iters: iterations of k-means.
        label_maps: which concept a cell of a view is of. 'exact': the one that covers most of
            it, by areas, for any affine view; 'rounded', as published: the reference is cut along
            its cells nearest to the view's edges, and resized by adaptive pooling.
        pad_queue: whether n concepts are filled up to K·B (4·B for K > 8) when they enter the
            queue, by up to n of them again in random order, or are drawn where they are more
            (published). Otherwise each enters once.

    Attributes:
        queue: of L2-normalised concept keys, the same on all ranks.

    Raises:
        UserError: a setting is impossible.
    """

    def __init__(self, num_concepts: int = 8, queue_len: int = 16384, feat_dim: int = 128,
                 temperature: float = 0.2, kmeans_iters: int = 10,
                 label_maps: LabelMaps = 'rounded', pad_queue: bool = True):
        super().__init__()
        for name, value in ('num_concepts', num_concepts), ('kmeans_iters', kmeans_iters):
            if value < 1:
                raise UserError(f'{name} is {value}', where=f'model.{name}',
                                expected='a positive integer')
        if label_maps not in LABEL_MAPS:
            raise UserError(f"no label maps are called '{label_maps}'", where='model.label_maps',
                            expected='one of ' + ', '.join(LABEL_MAPS),
                            nearest=nearest(str(label_maps), LABEL_MAPS))
        self.queue = Queue(queue_len, feat_dim)
        self.num_concepts, self.kmeans_iters = num_concepts, kmeans_iters
        self.temperature = temperature
        self.label_maps, self.pad_queue = label_maps, pad_queue

    def forward(self, q_map: Tensor, k_map: Tensor, reference: Tensor, view_to_tile: Tensor,
                geometry: Geometry, project_q: Project, project_k: Project
                ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, without its weight, and monitors; keys enter the queue.

        Args:
            q_map: last feature map of the queries, (B, C, h, w).
            k_map: that of the keys, without gradient.
            reference: feature map of the reference view that is clustered, (B, C', H, W).
            view_to_tile: maps of queries, keys and reference, (B, 3, 2, 3).
            geometry: 'axis_aligned' or 'affine', what the maps are.
            project_q: the query encoder's neck, from a map (N, C, 1, 1) to (N, D).
            project_k: the key encoder's.

        Returns:
            InfoNCE, mean over all concepts of all ranks that both views of a tile show, 0 with
            none.
        """
        with torch.autocast(q_map.device.type, enabled=False):
            planes, monitors = self.find(reference)
            in_q, in_k = (self.in_view(planes, view_to_tile[:, (view, 2)], grid, geometry)
                          for view, grid in enumerate((grid_of(q_map), grid_of(k_map))))
            p_q, p_k = pooled(q_map, in_q), pooled(k_map, in_k)  # B·K x C x 1 x 1
            shared = (in_q.any(1) & in_k.any(1)).flatten()  # B·K
        z_q = normalize(project_q(p_q))
        with torch.no_grad():
            z_k = normalize(project_k(p_k))
        losses = info_nce(z_q, z_k, self.queue.vectors, self.temperature, shared.to(z_q.dtype),
                          reduction='none')
        loss = weighted_mean(losses, shared)
        monitors.update(
            concepts_shared=shared.float().sum() / len(q_map),
            acc_concept=health.contrastive_accuracy(z_q, z_k, self.queue.vectors, shared,
                                                    at_most=256))
        if self.training:
            self.remember(distributed.all_gather(z_k), distributed.all_gather(shared))
        return loss, monitors

    def check_geometry(self, geometry: Geometry) -> None:
        """Raise a UserError if views may lie obliquely on what is cut along its cells."""
        if self.label_maps == 'rounded' and geometry == 'affine':
            raise UserError('crops rounded to cells cannot follow affine steps',
                            where='model.label_maps', expected="'exact'")

    def find(self, reference: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cluster the cells of each image's map (B, C, H, W).

        Returns:
            One plane for each concept, (B, K, H, W) of 0 and 1, and monitors: how many concepts
            an image has, and how many empty clusters began anew.
        """
        batch, _, height, width = reference.shape
        points = cells(at_least_float32(reference))
        first, reseed = draw_cells(batch, self.num_concepts, self.kmeans_iters, height * width,
                                   reference.device)
        found = cell_kmeans(points, first, reseed)
        numbers = torch.arange(self.num_concepts, device=reference.device)[:, None]
        planes = (found.labels[:, None] == numbers).to(points.dtype)  # B K H·W
        return planes.unflatten(2, (height, width)), dict(
            concepts_found=planes.any(2).float().sum() / batch,
            clusters_reseeded=found.reseeded.float().mean())

    def in_view(self, planes: Tensor, maps: Tensor, grid: tuple[int, int],
                geometry: Geometry) -> Tensor:
        """Return of which concept the cells of a view are.

        Args:
            planes: of the reference's cells, (B, K, H, W).
            maps: view-to-tile maps of the view and of the reference, (B, 2, 2, 3).
            grid: rows h and columns w of the view's cells.

        Returns:
            (B, h·w, K) of 0 and 1, at most a single 1 in a row: the concept with most of the cell,
            the lowest of several, none where the reference shows nothing of it.
        """
        if self.label_maps == 'exact':
            matching = match_cells(maps[:, 0], maps[:, 1], grid, geometry, key_grid=grid_of(planes))
            votes = matching.match_q.to(planes.dtype) @ planes.flatten(2).mT
        else:
            to_reference = compose(invert(maps[:, 1].double()), maps[:, 0].double())
            votes = rounded_votes(planes, to_reference, grid)
        most, label = votes.max(2, keepdim=True)
        numbers = torch.arange(self.num_concepts, device=label.device)
        return ((label == numbers) & (most > 0)).to(planes.dtype)

    @torch.no_grad()
    def remember(self, keys: Tensor, shared: Tensor) -> None:
        """Put concepts into the queue.

        Args:
            keys: of all ranks, (N, D), L2-normalised.
            shared: which of them both views show, bool (N,).
        """
        keys, count = keys[shared.logical_not().to(torch.int8).argsort(stable=True)], shared.sum()
        if self.pad_queue:
            places = len(keys) if self.num_concepts <= 8 else 4 * len(keys) // self.num_concepts
            slots = torch.arange(places, device=keys.device)
            again, fits = random_order(count, len(keys)), count < places
            rows = torch.where(slots < count, slots, again[(slots - count).clamp_min(0)])
            rows = torch.where(fits, rows, again[:places])
            keys = keys[rows]
            count = torch.where(fits, (2 * count).clamp_max(places), places)
        self.queue.enqueue_first(keys, count)


def pooled(feature_map: Tensor, planes: Tensor) -> Tensor:
    """Return the mean of each concept's cells, in float32 at least, as maps of one cell.

    Args:
        feature_map: (B, C, h, w).
        planes: of which concept its cells are, (B, h·w, K).

    Returns:
        (B·K, C, 1, 1), 0 for a concept without cells.
    """
    sums = planes.mT @ cells(feature_map.to(planes.dtype))  # B K C
    return (sums / planes.sum(1).clamp_min(1)[..., None]).flatten(0, 1)[..., None, None]


def rounded_votes(planes: Tensor, to_reference: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return how many cells of each concept fall to the cells of a view.

    Of a view that lies within the reference they are the published ones. What of a view lies
    outside gets none, where published code squeezes the whole view into the reference.

    Args:
        planes: of the reference's cells, (B, K, H, W).
        to_reference: axis-aligned maps from the view to the reference, float64 (B, 2, 3).
        grid: rows and columns N of the view.

    Returns:
        (B, N², K), counts.

    Raises:
        UserError: the view is not square.
    """
    (rows, columns), (height, width) = grid, grid_of(planes)
    if rows != columns:
        raise UserError(f'views of {rows} x {columns} cells cannot be rounded to cells of their '
                        'reference', where='model.label_maps', expected="'exact', or square views")
    extent = to_reference[:, :, :2].sum(2)  # along x and y of the reference, with sign
    corner = to_reference[:, :, 2] + extent.clamp(max=0)
    bins = []
    for axis, count, length in (1, rows, height), (0, columns, width):
        start, end = corner[:, axis] * length, (corner + extent.abs())[:, axis] * length
        first, last = rounded(start), rounded(end)
        first = torch.where(start < length, first.clamp(max=length - 1), first)
        last = torch.where(end > 0, last.clamp_min(1), last)
        size = (last - first).clamp_min(1)[:, None]  # a cell at least
        place = torch.arange(count, device=planes.device)
        begin = first[:, None] + place * size // count  # adaptive pooling
        stop = first[:, None] - (-(place + 1) * size).div(count, rounding_mode='floor')
        cell = torch.arange(length, device=planes.device)
        side = (end - start)[:, None] / count
        shown = ((start[:, None] + (place + 1 - SLIVER) * side > 0)
                 & (start[:, None] + (place + SLIVER) * side < length))  # B count
        inside = ((cell >= begin[..., None]) & (cell < stop[..., None])
                  & shown[..., None])  # B count length
        bins.append(torch.where((extent[:, axis] < 0)[:, None, None], inside.flip(1), inside))
    along_y, along_x = (inside.to(planes.dtype)[:, None] for inside in bins)
    votes = along_y @ planes @ along_x.mT  # B K h w
    turned = to_reference[:, 0, 0].abs() < to_reference[:, 0, 1].abs()
    votes = torch.where(turned[:, None, None, None], votes.mT, votes)
    return votes.flatten(2).mT


def rounded(places: Tensor) -> Tensor:
    """Round to whole numbers, halves to even; what lies within the maps' rounding of a half is."""
    halves = (2 * places).round() / 2
    return torch.where((places - halves).abs() < ROUNDING, halves, places).round().long()


def draw_cells(batch: int, clusters: int, iters: int, count: int,
               device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw where k-means starts: by rank 0's default generator on the CPU, as shuffling is.

    Returns:
        The first centroids of this rank's images, int64 (B, K), with replacement, and the cells
        that fill empty clusters, (I, K), the same for all images of all ranks.
    """
    world, rank = distributed.world_size(), distributed.rank()
    drawn = torch.randint(count, (world * batch + iters, clusters)).to(device, non_blocking=True)
    drawn = distributed.broadcast(drawn)
    return drawn[rank * batch:(rank + 1) * batch], drawn[world * batch:]


def random_order(count: Tensor, total: int) -> Tensor:
    """Return the numbers below ``count``, a scalar, in random order, then the others: (total,)."""
    noise = distributed.broadcast(torch.rand(total).to(count.device, non_blocking=True))
    return torch.where(torch.arange(total, device=count.device) < count, noise, 2).argsort()
