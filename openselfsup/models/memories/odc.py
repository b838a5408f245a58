"""The memory of online deep clustering: features and labels of all tiles, and class centroids."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import distributed
from ..pseudo_labels import sizes_of
from .simple import last_of_each


class ODCMemory(nn.Module):
    """Samples memory and centroids memory (arXiv 2006.10645, sec. 3.2), the same on all ranks.

    Until :meth:`start`, features are random directions and tile i has the label i mod K.

    Args:
        length: number N of tiles.
        dim: size D of a feature.
        clusters: number K of classes.
        momentum: m in [0, 1], the weight of the **new** feature.
        min_cluster: a class of fewer tiles is dissolved.

    Attributes:
        feature_bank: buffer of shape (N, D), L2-normalised.
        label_bank: int64 buffer of shape (N,).
        centroids: buffer of shape (K, D), means of the classes, not normalised.
        splits: int64 buffer of shape (1,), classes split in two so far.
    """

    feature_bank: Tensor
    label_bank: Tensor
    centroids: Tensor
    splits: Tensor

    def __init__(self, length: int, dim: int, clusters: int, momentum: float = 0.5,
                 min_cluster: int = 20):
        super().__init__()
        self.momentum, self.min_cluster = momentum, min_cluster
        self.register_buffer('feature_bank', F.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer('label_bank', torch.arange(length) % clusters)
        self.register_buffer('centroids', torch.zeros(clusters, dim))
        self.register_buffer('splits', torch.zeros(1, dtype=torch.int64))
        self.centroids.copy_(self._means())

    @property
    def sizes(self) -> Tensor:
        """Tiles of each class, int64 (K,)."""
        return sizes_of(self.label_bank, len(self.centroids))

    @torch.no_grad()
    def start(self, features: Tensor, labels: Tensor) -> None:
        """Remember features (N, D) and labels (N,) of all tiles; an empty class gets a half."""
        self.feature_bank.copy_(F.normalize(features.to(self.feature_bank), dim=1))
        self.label_bank.copy_(labels)
        self.update_centroids()
        self._fill_empty()
        self._share()

    @torch.no_grad()
    def update_samples(self, index: Tensor, features: Tensor) -> Tensor:
        """Move the features of all ranks' tiles, and give the tiles the labels that fit these.

        u = norm((1 - m) old + m norm(new)), label = argmax_c centroid_c·u. A tile that is several
        times in the global batch is moved once, by the last of its features in the order of ranks.

        Args:
            index: int64 tensor of shape (B,), places of the tiles.
            features: of shape (B, D), not normalised.

        Returns:
            The share of the global batch whose label has changed, a scalar tensor.
        """
        index, features = distributed.all_gather(index), distributed.all_gather(features)
        with torch.autocast(features.device.type, enabled=False):
            new = F.normalize(features.to(self.feature_bank.dtype), dim=1)
            moved = F.normalize(torch.lerp(self.feature_bank[index], new, self.momentum), dim=1)
            moved = moved[last_of_each(index)]
            labels = distributed.broadcast((moved @ self.centroids.T).argmax(1))
        changed = (labels != self.label_bank[index]).float().mean()
        self.feature_bank.index_copy_(0, index, moved)
        self.label_bank.index_copy_(0, index, labels)
        return changed

    @torch.no_grad()
    def update_centroids(self) -> None:
        """Set the centroid of every class that has tiles to the mean of their features."""
        # Sums on GPUs differ in their rounding.
        self.centroids.copy_(distributed.broadcast(self._means()))

    def _means(self) -> Tensor:
        """Return the mean feature of each class, (K, D), its centroid where it has no tiles."""
        sums = torch.zeros_like(self.centroids).index_add_(0, self.label_bank, self.feature_bank)
        sizes = self.sizes[:, None]
        return torch.where(sizes > 0, sums / sizes.clamp_min(1), self.centroids)

    @torch.no_grad()
    def deal_with_small_clusters(self) -> None:
        """Dissolve classes of fewer than ``min_cluster`` tiles; split the largest in their place.

        The tiles of small classes join the nearest of the other classes. Then each class without
        tiles gets a part of the largest class, which 2-means splits in two. A part may be small
        again (it is then dealt with at the next call). The host waits for the device; rank 0 does
        the work and the others take what it found.
        """
        small = self.sizes < self.min_cluster
        some, every = torch.stack([small.any(), small.all()]).tolist()
        if not some:
            return
        if distributed.is_main():
            if not every:
                self._dissolve(small)
            self._fill_empty()
        self._share()

    def _dissolve(self, small: Tensor) -> None:
        """Move the tiles of the classes in ``small``, bool (K,), to the nearest of the others."""
        members = small[self.label_bank].nonzero()[:, 0]
        scores = self.feature_bank[members] @ self.centroids.T
        self.label_bank[members] = scores.masked_fill(small, -torch.inf).argmax(1)

    def _fill_empty(self) -> None:
        """Give each empty class a part of the largest one, the first of several."""
        sizes = self.sizes.tolist()
        for empty in [number for number, size in enumerate(sizes) if not size]:
            largest = max(range(len(sizes)), key=sizes.__getitem__)
            members = (self.label_bank == largest).nonzero()[:, 0]
            moves = split_in_two(self.feature_bank[members].cpu().numpy())
            self.label_bank[members[torch.from_numpy(moves).to(members.device)]] = empty
            for number in (largest, empty):
                rows = self.feature_bank[self.label_bank == number]
                sizes[number] = len(rows)
                self.centroids[number] = rows.mean(0)
            self.splits += 1

    def _share(self) -> None:
        """Take over what rank 0 found; features are the same on all ranks."""
        for buffer in (self.label_bank, self.centroids, self.splits):
            buffer.copy_(distributed.broadcast(buffer))


def split_in_two(rows: np.ndarray) -> np.ndarray:
    """Return which of at least two rows (N, D) make the second of two clusters, bool (N,).

    scikit-learn's k-means, always seeded alike. Rows that it cannot tell apart are parted by
    turns.
    """
    from sklearn.cluster import KMeans  # a second to import
    second = np.zeros(len(rows), bool)
    if np.ptp(rows, axis=0).any():
        second = KMeans(2, random_state=0, max_iter=20, n_init=1).fit_predict(rows) == 1
    return second if 0 < second.sum() < len(rows) else np.arange(len(rows)) % 2 == 1
