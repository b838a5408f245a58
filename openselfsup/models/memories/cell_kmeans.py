"""k-means over the cells of each image by itself, all images of a batch at once.

ConCL (arXiv 2207.06733, sec. 3.2) finds concepts this way: cells of one image that look alike.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class CellClusters(NamedTuple):
    """What :func:`cell_kmeans` found.

    Attributes:
        labels: int64 (B, N) with values in [0, K), the clusters of the last assignment.
        centroids: (B, K, C), means of the L2-normalised cells after it.
        reseeded: (B,), how many empty clusters of each image began anew, over all iterations.
    """

    labels: Tensor
    centroids: Tensor
    reseeded: Tensor


@torch.no_grad()
def cell_kmeans(cells: Tensor, first: Tensor, reseed: Tensor) -> CellClusters:
    """Cluster the cells of every image by their cosine, starting from cells of its own.

    In each iteration every cell joins the centroid of the highest cosine (the first of several),
    and every centroid becomes the mean of its cells, or a given cell where it has none. Nothing
    waits for the device, and an image's clusters depend on no other image.

    Args:
        cells: (B, N, C), float32 or float64; L2-normalised here.
        first: int64 (B, K), the cells that centroids start at. Of two equal ones the second
            stays empty in the first iteration.
        reseed: int64 (I, K), the cell of each image that takes the place of an empty cluster,
            for each of I >= 1 iterations.
    """
    cells = F.normalize(cells, dim=2)
    channels, numbers = cells.shape[2], torch.arange(first.shape[1], device=cells.device)
    centroids = cells.gather(1, first[..., None].expand(-1, -1, channels))  # B K C
    earlier = numbers[:, None] > numbers
    repeated = ((first[:, :, None] == first[:, None]) & earlier).any(2)  # B K
    reseeded = cells.new_zeros(len(cells))
    for iteration, anew in enumerate(reseed):
        similarity = cells @ F.normalize(centroids, dim=2).mT  # B N K
        if iteration == 0:  # whatever a product makes of equal columns
            similarity = similarity.masked_fill(repeated[:, None], -torch.inf)
        labels = similarity.argmax(2)
        onehot = (labels[..., None] == numbers).to(cells.dtype)
        sizes = onehot.sum(1)[..., None]  # B K 1
        means = (onehot.mT @ cells) / sizes.clamp_min(1)
        centroids = torch.where(sizes > 0, means, cells.index_select(1, anew))
        reseeded += (sizes == 0).sum((1, 2))
    return CellClusters(labels, centroids, reseeded)
