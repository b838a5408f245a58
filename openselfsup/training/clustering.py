"""k-means over the features of a whole data set (DeepCluster, arXiv 1807.05520, sec. 4.1)."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError

_ROWS = 65536  # taken in double precision at a time
_CONSTANT = 1e-10  # share of the largest variance below which a component is rounding


class DatasetClusters(NamedTuple):
    """What :func:`kmeans` found.

    Attributes:
        labels: int64 (N,), on the CPU.
        objective: mean squared distance of a row to its centroid.
    """

    labels: Tensor
    objective: float


def whiten(features: Tensor, dim: int) -> Tensor:
    """Return L2-normalised principal components of variance 1.

    The signs of components are arbitrary. Components that do not vary are left at 0, where
    dividing by their variance would make rounding count as much as all else.

    Args:
        features: tensor of shape (N, C).
        dim: components to keep, at most C.

    Returns:
        float32 tensor of shape (N, dim), on the device of the features.
    """
    if dim > features.shape[1]:
        raise UserError(f'features of {features.shape[1]} numbers have no {dim} components',
                        where='hooks.pca_dim', expected=f'at most {features.shape[1]}, or None')
    mean = features.double().mean(0)
    covariance = sum((part.T @ part for part in (rows.double() - mean
                                                 for rows in features.split(_ROWS))),
                     start=torch.zeros(len(mean), len(mean), dtype=torch.float64,
                                       device=features.device)) / len(features)
    variance, directions = torch.linalg.eigh(covariance)  # in rising order
    variance, directions = variance.flip(0)[:dim], directions.flip(1)[:, :dim]
    scale = torch.where(variance > _CONSTANT * variance[0].clamp_min(torch.finfo().tiny),
                        variance.clamp_min(torch.finfo().tiny).rsqrt(), 0)
    return torch.cat([F.normalize((rows.double() - mean) @ (directions * scale), dim=1).float()
                      for rows in features.split(_ROWS)])


def kmeans(features: Tensor, clusters: int, seed: int, iterations: int = 20) -> DatasetClusters:
    """Cluster rows by faiss' k-means, on a GPU where faiss is built for one.

    All rows take part; a cluster that becomes empty takes a part of a large one.

    Args:
        features: float32 tensor of shape (N, D), on any device.
        clusters: number K of clusters.
        seed: draws the first centroids.
        iterations: of k-means.

    Raises:
        UserError: fewer rows than clusters, or faiss is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError(f'faiss cannot be imported ({error})', where='hooks',
                        expected='pip install faiss-cpu, or a build of faiss for GPUs') from None
    if len(features) < clusters:
        raise UserError(f'{len(features)} tiles cannot form {clusters} clusters',
                        where='model.head.num_classes', expected=f'at most {len(features)}')
    rows = np.ascontiguousarray(features.detach().float().cpu().numpy())
    found = faiss.Kmeans(rows.shape[1], clusters, niter=iterations, seed=seed,
                         gpu=faiss.get_num_gpus() > 0, min_points_per_centroid=1,
                         max_points_per_centroid=len(rows))
    found.train(rows)
    distances, labels = found.index.search(rows, 1)
    return DatasetClusters(torch.from_numpy(labels[:, 0]).long(), float(distances.mean()))


class Comparison(NamedTuple):
    """How one clustering relates to the one before it.

    Attributes:
        reassigned: share of tiles that are not in the cluster where most of those are that were
            in one cluster with them.
        agreement: normalised mutual information, 1 for the same clusters under any numbers.
    """

    reassigned: float
    agreement: float


def compare(before: Tensor, after: Tensor) -> Comparison:
    """Compare two clusterings (N,) of the same tiles, whose numbers mean nothing."""
    from sklearn.metrics import normalized_mutual_info_score
    pairs, counts = np.unique(np.stack([before.numpy(), after.numpy()]), axis=1,
                              return_counts=True)
    largest = np.zeros(int(pairs[0].max()) + 1, np.int64)
    np.maximum.at(largest, pairs[0], counts)
    return Comparison(1 - int(largest.sum()) / len(before),
                      float(normalized_mutual_info_score(before.numpy(), after.numpy())))
