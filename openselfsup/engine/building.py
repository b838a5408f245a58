"""The parts of a run that are made from its config, and what is refused before any work."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .. import distributed
from ..checkpoints import described_parts
from ..datasets import TileDataset
from ..errors import UserError
from ..models.method import Method
from ..pretrained import feature_of
from ..registry import BACKBONES
from ..training.schedules import cosine
from ..training.sharding import shard
from ..views import UnionView
from .hooks import Hook, ProbeHook


def batch_size_per_rank(cfg: Config, world_size: int) -> int:
    """Return global_batch_size / (ranks * accumulate).

    Raises:
        UserError: it does not divide; the numbers of processes that would are listed.
    """
    total, parts = cfg.global_batch_size, world_size * cfg.accumulate
    if total % parts:
        fits = [n for n in range(1, min(total, 128) + 1) if total % (n * cfg.accumulate) == 0]
        near = sorted({max(total // parts, 1) * parts, -(-total // parts) * parts})
        raise UserError(
            f'{total} tiles cannot be shared equally by {world_size} processes'
            + (f' with accumulate={cfg.accumulate}' if cfg.accumulate > 1 else ''),
            where='global_batch_size',
            expected=f"one of {', '.join(map(str, fits))} processes, or a global_batch_size of "
                     + ' or '.join(map(str, near)))
    return total // parts


def scaled_learning_rate(cfg: Config) -> float:
    """Return optimizer.lr, times global_batch_size / base_batch_size where that is given."""
    scale = cfg.global_batch_size / cfg.base_batch_size if cfg.base_batch_size else 1.0
    return cfg.optimizer['lr'] * scale


def weight_decays(cfg: Config, steps: int) -> np.ndarray:
    """Return factors on the weight decay, (steps,): half a cosine to ``weight_decay_end``.

    Raises:
        UserError: there is an end, but the weight decay is 0, of which nothing is a multiple.
    """
    end, start = cfg.optimizer.get('weight_decay_end'), cfg.optimizer.get('weight_decay')
    if end is None:
        return np.ones(steps)
    if not start:
        raise UserError('weight_decay_end needs a weight decay to begin with',
                        where='optimizer.weight_decay', expected='a number above 0')
    return cosine(1., end / start, steps)


def check_start(cfg: Config) -> None:
    """Refuse heads that learn alone on a backbone that knows nothing.

    Raises:
        UserError: there are no weights to start from.
    """
    backbone = cfg.model.get('backbone') or {}
    if cfg.model.get('heads_only_epochs') and not (cfg.pretrained or backbone.get('init_cfg')):
        raise UserError('this config goes on from weights, but names none', where='pretrained',
                        expected='--pretrained FILE, or model.heads_only_epochs=0 for a backbone '
                                 'that starts at random')


def tell_feature(cfg: Config) -> None:
    """Let that part of a ViT stand for an image which its method trains, unless the config says."""
    for _, part in described_parts(cfg.model):
        if feature := feature_of(part, cfg.model.type):
            part['feature'] = feature


def tell_data(algorithm: Method, dataset: TileDataset) -> None:
    """Tell a method of its tiles and maps; refuse tiles or recipes without what it needs."""
    source = dataset.source
    if 'label' in algorithm.batch_keys and source.labels is None:
        raise source.fault or UserError(
            f'{type(algorithm).__name__} learns from labels, but these tiles have none',
            where='dataset.source', expected='a list with labels, or class folders and '
            'labels=True, or a method without labels')
    if 'index' in algorithm.batch_keys and source.endless:
        raise UserError(f'{type(algorithm).__name__} remembers each tile by its number, but these '
                        'tiles are new in every epoch', where='dataset.source',
                        expected='a source of fixed tiles, or a method without a memory of them')
    classes = source.classes
    if classes is None and source.labels is not None and len(source.labels):
        classes = [str(label) for label in range(int(source.labels.max()) + 1)]  # without names
    check_views(algorithm, dataset)
    algorithm.set_data(len(dataset), classes)
    if not algorithm.needs_geometry:
        return
    if dataset.geometry != 'none':
        algorithm.set_geometry(dataset.geometry)
        return
    steps = {f'{path}.{key}': kind for path, recipe in zip(dataset.recipe_paths, dataset.recipes)
             for key, kind in recipe.breaking_steps.items()}
    raise UserError(
        f"{type(algorithm).__name__} matches cells by their place in the tile, but "
        f"{', '.join(dict.fromkeys(steps.values()))} moves pixels in a way that no affine map "
        'describes', where=', '.join(steps),
        expected='crops, flips, quarter turns or affine steps only, or a method without geometry')


def check_views(algorithm: Method, dataset: TileDataset) -> None:
    """Refuse recipes that make other views than a method takes.

    Raises:
        UserError: they are too few or too many, or the third does not hold the first two.
    """
    name, names = type(algorithm).__name__, dataset.view_names
    fewest, most = getattr(algorithm, 'takes_views', (1, None))
    reference = getattr(algorithm, 'needs_reference', False)
    wanted = ("dict(query=..., key=..., reference=dict(type='UnionView', of=['query', 'key']))"
             if reference else f'n_views={fewest}, or {fewest} named views')
    if not fewest <= len(names) <= (most or len(names)):
        more = '' if most == fewest else f' to {most}' if most else ' or more'
        raise UserError(f'{name} takes {fewest}{more} view{"s" * ((most or 2) > 1)} of each tile, '
                        f'but the recipe makes {len(names)}', where='dataset.recipe',
                        expected=wanted)
    if not reference:
        return
    third = dataset.recipes[2]
    if not isinstance(third, UnionView) or {*third.of} != {*names[:2]}:
        raise UserError(f"{name} looks for concepts in its third view, but '{names[2]}' is no "
                        f"UnionView of '{names[0]}' and '{names[1]}'",
                        where=dataset.recipe_paths[2], expected=wanted)


def check_hooks(algorithm: nn.Module, hooks: Sequence[Hook]) -> None:
    """Refuse a run without the hooks that a method cannot do without."""
    present = {kind.__name__ for hook in hooks for kind in type(hook).__mro__}
    for name in getattr(algorithm, 'needs_hooks', ()):
        if name not in present:
            raise UserError(f'{type(algorithm).__name__} gets its clusters from a hook that this '
                            'config lacks', where='hooks', expected=f"dict(type='{name}')")


def place(algorithm: nn.Module, cfg: Config, device: torch.device, amp: str) -> nn.Module:
    """Move the algorithm to the device, compile its backbones where asked, share it by ranks.

    Args:
        algorithm: the method.
        cfg: of the run.
        device: of this rank.
        amp: 'off', 'bf16' or 'fp16'.

    Returns:
        What is called in a step: the algorithm, or its wrapper if several ranks train it.

    Raises:
        UserError: a method or precision whose parameters cannot be shared out, or SyncBN on CPUs.
    """
    if cfg.parallel == 'fsdp':
        check_sharding(algorithm, amp)
    layout = torch.channels_last if cfg.channels_last else torch.contiguous_format
    algorithm = algorithm.to(device).to(memory_format=layout)
    if cfg.compile:
        for module in algorithm.modules():
            if type(module) in BACKBONES.module_dict.values():
                module.compile()
    if not distributed.is_distributed():
        return algorithm
    check_sync_bn(algorithm, device)
    if cfg.parallel == 'fsdp':
        shard(algorithm, amp)
        return algorithm
    # Queues are equal on all ranks by construction: broadcasting them each step
    # (DDP's default for buffers) would cost more than the gradients of a ResNet-18.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = next(name for name in ('forward_sync_buffers', 'broadcast_buffers')
                   if name in known)  # the new name, and the one before torch 2.15
    options: dict[str, Any] = {buffers: False}
    return DistributedDataParallel(
        algorithm, device_ids=[device.index] if device.type == 'cuda' else None, **options)


def cells_of(algorithm: Method, dataset: TileDataset) -> list[tuple[int, int]] | None:
    """Return the grids of cells of two views that rank 0 draws, None where none are matched.

    To be asked before ranks share the backbone out: then a single one can compute nothing.
    """
    if not algorithm.needs_geometry or len(dataset.recipes) < 2 or not distributed.is_main():
        return None
    from ..visualization import cell_grid
    return [cell_grid(algorithm.backbone, recipe.size) for recipe in dataset.recipes[:2]]


def copy_to_look_at(algorithm: Method, cfg: Config, hooks: Sequence[Hook],
                    device: torch.device) -> nn.Module | None:
    """Return a backbone that is whole on rank 0, for probes of one that will not be."""
    if (cfg.parallel == 'ddp' or not distributed.is_distributed() or not distributed.is_main()
            or not any(isinstance(hook, ProbeHook) for hook in hooks)):
        return None
    return copy.deepcopy(algorithm.backbone).requires_grad_(False).to(device)


def check_sharding(algorithm: Any, amp: str) -> None:
    """Refuse to share out the parameters of a method that changes them in its forward pass."""
    name = type(algorithm).__name__
    if not getattr(algorithm, 'can_shard', False):
        raise UserError(f'{name} changes parameters in its forward pass, where each rank would see '
                        'a part of them', where='parallel', expected="'ddp', or a method that can "
                        'be shared out, such as DINO, iBOT, DINOv2, BYOL or VICRegL')
    if amp == 'fp16':
        raise UserError('a loss scale for fp16 is not shared by ranks', where='parallel',
                        expected="amp='bf16' or 'off', or parallel='ddp'")


def check_sync_bn(model: nn.Module, device: torch.device) -> None:
    """Say early that torch synchronises BatchNorm on GPUs only."""
    if device.type == 'cpu' and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        raise UserError("norm 'SyncBN' works on GPUs only when several processes train",
                        where='model.backbone.norm_cfg', expected="type 'BN' or 'GN' on CPU")
