"""clusters.png and adversarial.png: what the parts of CA2CL do, redrawn at the end of epochs."""

import numpy as np
import torch
from torch import Tensor

from ... import distributed
from ...errors import UserError
from ...registry import HOOKS
from ...training.modes import eval_mode
from ...values import Count
from ...views import ViewRecipe, render_opencv, unbind
from .pictures import PictureHook


@HOOKS.register_module()
class ClusterPictures(PictureHook):
    """Cluster some tiles as the cluster head does, and draw clusters.png.

    Args:
        tiles: how many tiles of the data set, evenly spaced, all ranks together.
        interval: epochs between two pictures; the last epoch always gets one.
    """

    def __init__(self, tiles: Count = 256, interval: Count = 1):
        self.tiles, self.interval = tiles, interval

    def before_train(self, runner) -> None:
        """Refuse an algorithm without a cluster head before any work."""
        _require(runner, 'cluster', 'ClusterHead', type(self).__name__)

    @torch.no_grad()
    def after_epoch(self, runner) -> None:
        """Draw; the ranks share the encoding."""
        algorithm, head = runner.algorithm, runner.algorithm.cluster
        world, count = distributed.world_size(), len(runner.dataset)
        share = min(self.tiles, count) // world
        if not runner.is_due(self.interval) or share * world < head.clusters:
            return
        indices = np.linspace(0, count - 1, share * world).round().astype(int)
        # k-means may start at the first tiles, which in the data set's order are of one kind.
        indices = np.random.default_rng(0).permutation(indices)
        images = plain_views(runner, indices[distributed.rank() * share:][:share])
        with eval_mode(algorithm):
            maps = algorithm.backbone(runner.preprocessor.normalize(images.to(runner.device)))
            group = algorithm.encoder_q['group_neck'](maps)
            found = head.find_clusters(group)
        fit = (group.float() * found.centroids[found.labels]).sum(1)
        tiles, labels, fits = (distributed.all_gather(x).cpu().numpy()
                               for x in (images.permute(0, 2, 3, 1), found.labels, fit))
        if distributed.is_main():
            from ...visualization.clusters import cluster_sheet
            source = runner.dataset.source
            classes = None
            if source.labels is not None and source.classes is not None:
                classes = [source.classes[source.label(i)] for i in indices.tolist()]
            self.draw(runner, lambda: cluster_sheet(
                tiles, labels, fits, head.clusters, runner.work_dir / 'clusters.png',
                classes=classes, title=f'Clusters after epoch {runner.position.epoch}'))


@HOOKS.register_module()
class AdversaryPictures(PictureHook):
    """Draw adversarial.png: what the last step's attack does to the attacked layer's output.

    Args:
        tiles: how many tiles of the data set, evenly spaced.
        interval: epochs between two pictures; the last epoch always gets one.
    """

    def __init__(self, tiles: Count = 5, interval: Count = 1):
        self.tiles, self.interval = tiles, interval

    def before_train(self, runner) -> None:
        """Refuse an algorithm without an adversary before any work."""
        _require(runner, 'adversary', 'WeightAdversary', type(self).__name__)

    @torch.no_grad()
    def after_epoch(self, runner) -> None:
        """Draw, if the attacked layer gives feature maps."""
        algorithm, adversary = runner.algorithm, runner.algorithm.adversary
        if (not distributed.is_main() or not runner.is_due(self.interval)
                or adversary.last_offset is None):
            return
        count = len(runner.dataset)
        indices = np.linspace(0, count - 1, min(self.tiles, count)).round().astype(int)
        images = plain_views(runner, indices)
        normalized = runner.preprocessor.normalize(images.to(runner.device))
        seen: list[Tensor] = []
        layer = algorithm.encoder_q.get_submodule(adversary.target.rpartition('.')[0])
        handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            with eval_mode(algorithm):
                for offset in (torch.zeros_like(adversary.last_offset), adversary.last_offset):
                    adversary.encode_attacked(algorithm.encoder_q, algorithm.encode, normalized,
                                              offset)
        finally:
            handle.remove()
        if seen[0].dim() != 4:
            return
        from ...visualization.attack import attack_sheet
        weight = algorithm.encoder_q.get_parameter(adversary.target)
        size = adversary.last_offset.norm()
        relative = size / weight.norm()
        clean, attacked = (x.float().cpu().numpy() for x in seen)
        self.draw(runner, lambda: attack_sheet(
            images.permute(0, 2, 3, 1).numpy(), clean, attacked,
            runner.work_dir / 'adversarial.png',
            title=f'{adversary.target} under attack, epoch {runner.position.epoch}',
            subtitle=f'the last step moved it by {size:.3g}, {100 * relative:.1f} % of '
                     'its norm; channels that change most, before and under the attack'))


def plain_views(runner, indices: np.ndarray) -> Tensor:
    """Return tiles at the size of the views without augmentation, uint8 (N, 3, S, S)."""
    dataset = runner.dataset
    recipe = ViewRecipe(dataset.recipes[0].size, [])
    out = np.empty((len(indices), *recipe.size, 3), np.uint8)
    for slot, index in zip(out, indices.tolist()):
        tile, _ = dataset.read(index)
        sizes = torch.tensor([tile.shape[:2]])
        render_opencv(tile, recipe, unbind(recipe.draw(sizes, torch.Generator()))[0], slot)
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def _require(runner, part: str, kind: str, hook: str) -> None:
    if getattr(runner.algorithm, part, None) is None:
        raise UserError(f'{hook} has nothing to draw: the model has no {part}', where='hooks',
                        expected=f"model.{part}=dict(type='{kind}', ...), or no such hook")
