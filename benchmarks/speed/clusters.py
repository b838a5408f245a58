"""What DeepCluster and ODC do between epochs: whitening and k-means of a whole data set."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from openselfsup.training.clustering import DatasetClusters, kmeans, whiten

from .timing import Case, on_threads

DIM, PCA_DIM, ITERATIONS = 512, 256, 20  # a ResNet-18's features; the published ones
SIZES = {20_000: 200, 100_000: 1000}  # tiles: clusters of about 100 tiles, as published


def cluster_cases() -> Iterator[Case]:
    """Yield a clustering at each size: there is no other way of doing it to compare with."""
    for rows, clusters in SIZES.items():
        torch.manual_seed(0)
        features = F.normalize(torch.randn(rows, DIM).relu_() + torch.randn(DIM).relu_(), dim=1)
        yield Case(f'clusters_{rows}', f'{rows} x {DIM} whitened to {PCA_DIM}, K {clusters}, '
                                       f'{ITERATIONS} iterations, one core',
                   on_threads(1, partial(_clustered, features, clusters)), None,
                   items=rows, unit='tiles/s', calls=1)


def _clustered(features: Tensor, clusters: int) -> DatasetClusters:
    return kmeans(whiten(features, PCA_DIM), clusters, 0, ITERATIONS)
