"""k-means of a batch, as CA2CL clusters its group vectors every step."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from openselfsup.models.memories import batch_kmeans

from . import published
from .timing import Case, on_threads

ROWS, DIM, CLUSTERS, ITERATIONS = 1792, 128, 10, 10


def kmeans_cases() -> Iterator[Case]:
    """Yield ten iterations of ten clusters."""
    torch.manual_seed(0)
    x = F.normalize(torch.randn(ROWS, DIM), dim=1)
    yield Case('kmeans', f'k-means of {ROWS} x {DIM}, K {CLUSTERS}, {ITERATIONS} iterations, '
                         'one core',
               on_threads(1, lambda: batch_kmeans(x, CLUSTERS, ITERATIONS)),
               on_threads(1, lambda: published.kmeans(x, CLUSTERS, ITERATIONS)),
               items=1, unit='runs/s', memory=True)
