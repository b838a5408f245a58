"""Clusters of the whole data set: what DeepCluster trains for, and what ODC starts from."""

import time
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ... import distributed
from ...datasets.labeled import PlainTiles
from ...errors import UserError
from ...models.algorithms.deepcluster import DeepCluster
from ...models.algorithms.odc import ODC
from ...models.parts import normalize
from ...registry import HOOKS
from ...training.clustering import compare, kmeans, whiten
from ...training.features import extract_features, refuse_not_finite
from ...values import Count
from .hook import Hook
from .metrics import write_line

_STREAM = 0xC1  # keeps the random numbers of clusterings apart from others of the same seed


class ClusteringHook(Hook):
    """Cluster the features of all tiles as they are, without augmentation.

    Ranks extract a part of the features each, rank 0 clusters them, and all take the same labels.
    Random numbers follow from the run's seed and the epoch. A line of metrics.jsonl says how long
    both took and what was found: ``extract_s`` and ``cluster_s`` in seconds, the sizes of the
    smallest and the largest cluster in tiles, ``cluster_objective``, the mean squared distance to
    the centroid.

    Args:
        iterations: of k-means.
        size: side of the images in pixels, by default that of the views.
        resize: short side of a tile before its centre is cropped to ``size``, by default ``size``.
        batch_size: tiles of one forward pass.
    """

    order = 'first'  # the clusters belong into all checkpoints of the epoch
    method: ClassVar[type[DeepCluster] | type[ODC]]

    def __init__(self, iterations: Count = 20, size: Count | None = None,
                 resize: Count | None = None, batch_size: Count = 64):
        if size is not None and resize is not None and resize < size:
            raise UserError(f'resize={resize} is less than size={size}',
                            where=f'hooks.{type(self).__name__}.resize')
        self.iterations, self.size, self.resize = iterations, size, resize
        self.batch_size = batch_size

    def before_train(self, runner) -> None:
        """Refuse a method that knows no clusters."""
        if not isinstance(runner.algorithm, self.method):
            raise UserError(f'{type(runner.algorithm).__name__} takes no clusters of this hook',
                            where=f'hooks.{type(self).__name__}',
                            expected=f"model.type='{self.method.__name__}'")
        size = self.size or min(runner.dataset.recipes[0].size)
        self.tiles = PlainTiles(runner.dataset, size, max(self.resize or size, size))

    def features(self, runner, network: nn.Module) -> Tensor:
        """Return what a network makes of all tiles, (N, D) on the run's device, on every rank.

        Ranks have seen other tiles: first they take rank 0's running statistics of batch norms, or
        else features would tell which rank extracted them. Checkpoints hold the same ones.

        Args:
            runner: the run.
            network: maps images to feature maps, of which the last is averaged over its cells.
        """
        count, world = len(self.tiles), distributed.world_size()
        share = -(-count // world)  # rounded up, so that all ranks have as many
        places = (distributed.rank() * share + np.arange(share)) % count
        normalization = runner.cfg.normalize
        distributed.share_running_statistics(network)
        found = extract_features(network, self.tiles.part(places), self.batch_size,
                                 normalization['mean'], normalization['std'], runner.amp)
        found = distributed.all_gather(found.to(runner.device))[:count]
        refuse_not_finite(found)
        return found

    def cluster(self, runner, rows: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the clusters of rows (N, D), int64 (N,) on their device, and what to log."""
        labels = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        found = dict[str, float]()
        if distributed.is_main():
            clusters = runner.algorithm.clusters
            labels, objective = kmeans(rows, clusters, _seed(runner) % 2 ** 31, self.iterations)
            sizes = torch.bincount(labels, minlength=clusters)
            found = dict(cluster_smallest_tiles=int(sizes.min()),
                         cluster_largest_tiles=int(sizes.max()), cluster_objective=objective)
            labels = labels.to(rows.device)
        return distributed.broadcast(labels), found

    def restart(self, runner) -> torch.Generator:
        """Forget the optimiser's momenta of the head; return what draws its new weights."""
        for parameter in runner.algorithm.head.parameters():
            runner.optimizer.state.pop(parameter, None)
        return torch.Generator().manual_seed(_seed(runner))

    def write(self, runner, found: dict[str, float]) -> None:
        """Write a line of metrics.jsonl, and the same to the log."""
        if not distributed.is_main():
            return
        write_line(runner, runner.steps_done, runner.position.epoch, found)
        runner.logger.info('clusters after epoch %d: %s', runner.position.epoch, '  '.join(
            f'{name} {value:.4g}' for name, value in found.items()))


@HOOKS.register_module()
class DeepClusterHook(ClusteringHook):
    """Give a :class:`DeepCluster` its labels: before training, and after epochs but the last.

    Its lines also hold ``cluster_reassigned`` and ``cluster_agreement``, how the clusters relate
    to those before; see :class:`openselfsup.training.clustering.Comparison`.

    Args:
        interval: epochs between two clusterings.
        pca_dim: principal components that are clustered, whitened; None clusters the features.
        uniform_sampling: whether epochs show all clusters alike, however many tiles they have.
        iterations, size, resize, batch_size: see :class:`ClusteringHook`.
    """

    method = DeepCluster

    def __init__(self, interval: Count = 1, pca_dim: Count | None = 256,
                 uniform_sampling: bool = True, iterations: Count = 20, size: Count | None = None,
                 resize: Count | None = None, batch_size: Count = 64):
        super().__init__(iterations, size, resize, batch_size)
        self.interval, self.pca_dim, self.uniform_sampling = interval, pca_dim, uniform_sampling

    def before_train(self, runner) -> None:
        """Refuse another method; let a run that goes on draw its tiles by its clusters."""
        super().before_train(runner)
        if runner.steps_done:
            self._sample(runner)

    def before_epoch(self, runner) -> None:
        """Find the first clusters."""
        if runner.steps_done == 0:
            self._assign(runner)

    def after_epoch(self, runner) -> None:
        """Find new clusters where they are due and still of use."""
        epoch = runner.position.epoch
        if epoch % self.interval == 0 and epoch < runner.cfg.epochs:
            self._assign(runner)

    def _assign(self, runner) -> None:
        start = time.perf_counter()
        algorithm = runner.algorithm
        rows = self.features(runner, algorithm.backbone)
        extracted = time.perf_counter()
        rows = normalize(rows) if self.pca_dim is None else whiten(rows, self.pca_dim)
        labels, found = self.cluster(runner, rows)
        clustered = time.perf_counter()
        if runner.steps_done and distributed.is_main():  # who writes it
            before = compare(algorithm.labels.cpu(), labels.cpu())
            found |= dict(cluster_reassigned=before.reassigned,
                          cluster_agreement=before.agreement)
        algorithm.assign(labels, self.restart(runner))
        self._sample(runner)
        self.write(runner, dict(extract_s=extracted - start,
                                cluster_s=clustered - extracted, **found))

    def _sample(self, runner) -> None:
        if self.uniform_sampling:
            runner.loader.see_alike(runner.algorithm.labels.cpu().numpy())


@HOOKS.register_module()
class ODCHook(ClusteringHook):
    """Give an :class:`ODC` the clusters that it starts from, once, before its first step.

    Args:
        iterations, size, resize, batch_size: see :class:`ClusteringHook`.
    """

    method = ODC

    def before_epoch(self, runner) -> None:
        """Find the clusters; a run that goes on has them."""
        if runner.steps_done:
            return
        start = time.perf_counter()
        algorithm = runner.algorithm
        rows = self.features(runner, _Vectors(algorithm.backbone, algorithm.neck))
        extracted = time.perf_counter()
        labels, found = self.cluster(runner, normalize(rows))
        algorithm.start(rows, labels, self.restart(runner))
        self.write(runner, dict(extract_s=extracted - start,
                                cluster_s=time.perf_counter() - extracted, **found))


class _Vectors(nn.Module):
    """A backbone with a neck whose vectors (B, D) are maps of one cell."""

    def __init__(self, backbone: nn.Module, neck: nn.Module):
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.neck(self.backbone(images))[:, :, None, None]]


def _seed(runner) -> int:
    """Return a seed that is another one for each epoch of a run."""
    state = np.random.SeedSequence([runner.cfg.seed % 2 ** 32, _STREAM, runner.position.epoch])
    return int(state.generate_state(1, np.uint64)[0] >> np.uint64(1))
