"""k-means over the features of one batch, which may be spread over several ranks.

CA2CL (JBHI 2025) clusters every batch anew. Distances are never formed: for a fixed row g,
‖g - c‖² and -(g·c - ½‖c‖²) have the same order, so an assignment is one matrix product, and
an update is the product of the one-hot labels with the rows.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ... import distributed

Empty = Literal['zero', 'mask', 'resplit']
EMPTY = get_args(Empty)
Init = Literal['first', 'kmeans++']
INIT = get_args(Init)


class Clusters(NamedTuple):
    """What :func:`batch_kmeans` found.

    Attributes:
        labels: int64 (B,) with values in [0, K), the clusters of this rank's rows.
        centroids: (K, D), means of the rows of all ranks, 0 for an empty cluster. The
            gradient flows to the rows of all ranks.
        sizes: (K,), rows of all ranks in each cluster.
    """

    labels: Tensor
    centroids: Tensor
    sizes: Tensor


def batch_kmeans(features: Tensor, clusters: int, iters: int = 10, init: str = 'first',
                 resplit: bool = False) -> Clusters:
    """Cluster the rows of all ranks as one process would that had them all.

    Repeated ``iters`` times: every row joins the nearest centroid (the first of several), then
    every centroid becomes the mean of its rows, or 0 without any. An iteration exchanges
    K·(D+1) numbers between ranks, ``resplit`` and 'kmeans++' somewhat more. The labels are
    those of the last assignment, which the centroids returned were computed from.

    Args:
        features: tensor of shape (B, D), B the same on all ranks, float32 or float64.
        clusters: number K of clusters.
        iters: number of iterations, >= 1.
        init: 'first' starts at the first K rows (published), 'kmeans++' at rows drawn far from
            each other (Arthur & Vassilvitskii 2007) by rank 0's default CPU generator.
        resplit: move the rows farthest from their centroids into clusters that would be
            empty, one each. Rows alone in their cluster stay there.

    Raises:
        ValueError: fewer rows than clusters, no iteration, or an unknown ``init``.
    """
    rows = len(features) * distributed.world_size()
    if rows < clusters:
        raise ValueError(f'{rows} rows cannot form {clusters} clusters')
    if iters < 1:
        raise ValueError(f'k-means needs at least one iteration, not {iters}')
    if init not in INIT:
        raise ValueError(f"init must be one of {', '.join(INIT)}, not '{init}'")
    with torch.no_grad():
        points = features.detach()
        ones = torch.ones_like(points[:, :1])
        extended = torch.cat([points, ones], 1)  # B x (D+1): sums and counts in one product
        centroids = _first_rows(points, clusters) if init == 'first' else plus_plus(
            distributed.all_gather(points), clusters)
        numbers = torch.arange(clusters, device=points.device)
        for iteration in range(iters):
            labels, scores = assign(points, centroids)
            onehot = one_hot(labels, numbers, points.dtype)
            if resplit:
                distances = points.square().sum(1) - 2 * scores
                labels = fill_empty(labels, distances, onehot)
                onehot = one_hot(labels, numbers, points.dtype)
            if iteration + 1 < iters:
                sums = distributed.all_reduce_sum(onehot.T @ extended)  # K x (D+1)
                centroids = sums[:, :-1] / sums[:, -1:].clamp_min(1)
    # The gradient flows through the last update alone: labels have none.
    sums = onehot.T @ torch.cat([features, ones], 1)
    sums = distributed.all_gather_with_grad(sums[None]).sum(0)
    sizes = sums[:, -1].detach()
    return Clusters(labels, sums[:, :-1] / sizes[:, None].clamp_min(1), sizes)


def assign(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest centroid c of each row g and its score g·c - ½‖c‖², both of shape (B,)."""
    scores, labels = torch.addmm(centroids.square().sum(1), points, centroids.T, beta=-0.5).max(1)
    return labels, scores


def one_hot(labels: Tensor, numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """Return labels (B,) as rows (B, K); torch's own one_hot reads them back to check them."""
    return (labels[:, None] == numbers).to(dtype)


def fill_empty(labels: Tensor, distances: Tensor, onehot: Tensor) -> Tensor:
    """Give each empty cluster one of the rows that lie farthest from their centroids.

    Args:
        labels: int64 tensor of shape (B,), clusters of this rank's rows.
        distances: tensor of shape (B,), squared distances to their centroids.
        onehot: ``labels`` as tensor of shape (B, K).

    Returns:
        The labels after the move, of shape (B,).
    """
    clusters = onehot.shape[1]
    sizes = distributed.all_reduce_sum(onehot.sum(0))
    movable = torch.where(sizes[labels] > 1, distances, -torch.inf)
    # The K farthest rows of all ranks, each known by its rank and its place there.
    own, places = movable.topk(min(clusters, len(labels)))
    farthest, order = distributed.all_gather(own).topk(min(clusters, distributed.world_size()
                                                           * len(own)))
    # The e-th farthest row goes to the e-th empty cluster, as long as there is one.
    empty_first = (sizes > 0).to(torch.int8).argsort(stable=True)[:len(order)]
    wanted = (sizes[empty_first] == 0) & torch.isfinite(farthest)
    mine = order.div(len(own), rounding_mode='floor') == distributed.rank()
    rows = places[order % len(own)]
    # Rows that are not moved are written to a place behind the end.
    rows = torch.where(wanted & mine, rows, len(labels))
    return torch.cat([labels, labels.new_zeros(1)]).index_copy(0, rows, empty_first)[:-1]


def _first_rows(points: Tensor, clusters: int) -> Tensor:
    """Return the first K of all ranks' rows."""
    return distributed.all_gather(points[:clusters])[:clusters]


def plus_plus(points: Tensor, clusters: int) -> Tensor:
    """Draw K of all ranks' rows, each with probability ∝ its squared distance to the nearest.

    Args:
        points: tensor of shape (N, D), the rows of all ranks.
        clusters: number K <= N of rows to draw.

    Returns:
        Tensor of shape (K, D), rank 0's on every rank.
    """
    # The exponential race: argmin of E_i / w_i over exponential E_i draws i in proportion to w.
    noise = torch.empty(clusters, len(points), dtype=points.dtype).exponential_().to(points.device)
    weights = torch.ones_like(points[:, 0])  # at first each row is as likely as any other
    nearest = torch.full_like(weights, torch.inf)
    chosen: list[Tensor] = []
    for race in noise:
        # index_select, since an index without dimensions would be read by the host.
        chosen.append(points.index_select(0, (race / weights).argmin(0, keepdim=True)))
        nearest = torch.minimum(nearest, (points - chosen[-1]).square().sum(1))
        weights = nearest
    return distributed.broadcast(torch.cat(chosen))
