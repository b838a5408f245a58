"""Small parts that methods share: building, checking, and the tensors between backbone and loss."""

from collections.abc import Mapping
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import distributed
from ..errors import UserError
from ..registry import Registry
from ..values import accepts, annotations
from ..views import Matching, match_cells


@overload
def built(part: dict | nn.Module, registry: Registry) -> nn.Module: ...
@overload
def built(part: dict | nn.Module | None, registry: Registry) -> nn.Module | None: ...
def built(part: dict | nn.Module | None, registry: Registry) -> nn.Module | None:
    """Return ``part``, built by ``registry`` if it is a config; None stays None."""
    return part if part is None or isinstance(part, nn.Module) else registry.build(part)


def built_on(part: dict | nn.Module | None, registry: Registry,
             before: nn.Module, vectors: bool = False) -> Any:
    """Return ``part`` as :func:`built` does, for the channels that another module gives.

    They are filled in where a config does not say ``in_channels``: those of the last map, or of
    every map where the class takes a list.

    Args:
        part: config of a neck or head, or a module.
        registry: of its kind.
        before: has ``out_channels``: a list of a backbone's, or the size of a neck's vectors.
        vectors: whether the part takes vectors. Of a map that it does not pool
            (``with_avg_pool=False``) the size is unknown here, and is to be said.
    """
    channels = getattr(before, 'out_channels', None)
    if not isinstance(part, Mapping) or 'in_channels' in part or not channels:
        return built(part, registry)
    hints = annotations(registry.get(part.get('type')))
    if 'in_channels' in hints and (vectors or part.get('with_avg_pool') is not False):
        last = channels if isinstance(channels, int) else channels[-1]
        every = isinstance(channels, list) and not accepts(last, hints['in_channels'])
        part = dict(part, in_channels=channels if every else last)
    return built(part, registry)


def check_channels(backbone: nn.Module, neck: nn.Module, name: str = 'neck') -> None:
    """Raise a UserError if a neck of this name does not take the channels of ``backbone``."""
    if not getattr(neck, 'with_avg_pool', True):
        return  # it takes the cells of a map as they are, C·h·w numbers
    offered = getattr(backbone, 'out_channels', [None])[-1]
    wanted = getattr(neck, 'in_channels', None)
    if offered and wanted and offered != wanted:
        raise UserError(f'the {name} takes {wanted} channels, the backbone gives {offered}',
                        where=f'model.{name}.in_channels', expected=str(offered))


def check_necks(encoder: nn.ModuleDict) -> None:
    """Raise a UserError if a neck of an encoder does not take what its backbone gives."""
    for name in 'neck', 'group_neck':
        if name in encoder:
            check_channels(encoder['backbone'], encoder[name], name)


def check_projection(neck: nn.Module, dim: int) -> None:
    """Raise a UserError if ``neck`` does not project to the queue's ``dim``."""
    size = getattr(neck, 'out_channels', None)
    if size is not None and size != dim:
        raise UserError(f'the queue holds vectors of size {dim}, the neck projects to {size}',
                        where='model.feat_dim', expected=str(size))


def check_matching_neck(neck: nn.Module, size: int | None) -> None:
    """Raise a UserError if a matching neck does not take cells of ``size`` channels, if known."""
    fc = getattr(neck, 'fc', None)
    if isinstance(fc, nn.Linear) and size is not None and fc.in_features != size:
        raise UserError(f'the matching neck takes {fc.in_features} channels, cells are projected '
                        f'to {size}', where='model.matching_neck.channels', expected=str(size))


def projection(neck: nn.Module, maps: list[Tensor], name: str = 'neck') -> Tensor:
    """Return what a neck makes of feature maps, (B, D).

    Args:
        neck: maps feature maps to vectors.
        maps: of the backbone.
        name: of the neck in a config.

    Raises:
        UserError: it returns something else, as a DenseCLNeck does.
    """
    found = neck(maps)
    if not isinstance(found, Tensor):
        raise UserError(f'{type(neck).__name__} returns more than one vector of an image',
                        where=f'model.{name}', expected="a neck such as dict(type='NonLinearNeck')")
    return found


def dense_projections(neck: nn.Module, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a dense neck makes of feature maps: (B, D), (B, D, N, N) and (B, D).

    Raises:
        UserError: it returns something else, as a neck for whole images does.
    """
    found = neck(maps)
    if not isinstance(found, tuple | list) or len(found) != 3:
        raise UserError(f'{type(neck).__name__} does not project cells beside the whole image',
                        where='model.neck', expected="a neck such as dict(type='DenseCLNeck')")
    return found[0], found[1], found[2]


def check_classes(head: nn.Module, count: int) -> None:
    """Raise a UserError if a classifier has fewer classes than there are to tell apart."""
    known = getattr(head, 'num_classes', count)
    if known < count:
        raise UserError(f'there are {count} classes, the head has {known}',
                        where='model.head.num_classes', expected=str(count))


def check_maps(view_to_tile: Tensor | None, method: nn.Module) -> Tensor:
    """Return ``view_to_tile``; raise a UserError if a method that needs it was not given it."""
    if view_to_tile is None:
        raise UserError(f'{type(method).__name__} needs to know where each view lies on its tile, '
                        'but the batch has no view_to_tile',
                        expected='a recipe of tracked geometry')
    return view_to_tile


def init_linear(module: nn.Module, kind: Literal['kaiming', 'normal'], std: float = 0.01,
                bias: float = 0.0) -> None:
    """Draw the weights of all linear layers of a module as OpenSelfSup's methods start.

    Args:
        module: its linear layers are changed.
        kind: 'kaiming' draws from N(0, 2 / fan_in) (arXiv 1502.01852), 'normal' from N(0, std²).
        std: standard deviation of 'normal'.
        bias: what every bias starts from.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            if kind == 'kaiming':
                nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')
            else:
                nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, bias)


def image_vectors(maps: list[Tensor], with_avg_pool: bool = True) -> Tensor:
    """Return one vector for each image of the last of some feature maps.

    Args:
        maps: feature maps, the last of shape (B, C, h, w), or (B, C) without pooling.
        with_avg_pool: whether to average over cells, (B, C), or take all of them, (B, C·h·w).

    Raises:
        UserError: vectors are to be pooled.
    """
    if with_avg_pool and maps[-1].dim() != 4:
        raise UserError('a part that averages over cells was given vectors', where='model',
                        expected='with_avg_pool=False in the part that takes them')
    return maps[-1].mean((2, 3)) if with_avg_pool else maps[-1].flatten(1)


def features_of(backbone: nn.Module, images: Tensor) -> Tensor:
    """Return what evaluation takes of each image: (B, C), in float32 at least.

    It is the mean of the last feature map, unless the backbone has ``image_features`` of its own,
    as a ViT has its class token.

    Args:
        backbone: maps images to a list of feature maps.
        images: normalised, (B, 3, H, W).
    """
    own = getattr(backbone, 'image_features', None)
    if own is not None:
        return at_least_float32(own(images))
    return at_least_float32(backbone(images)[-1]).mean((2, 3))


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def normalize(x: Tensor) -> Tensor:
    """L2-normalise the last dimension, in float32 at least."""
    return F.normalize(at_least_float32(x), dim=-1)


def grid_of(feature_map: Tensor) -> tuple[int, int]:
    """Return rows and columns of a map (B, C, h, w)."""
    height, width = feature_map.shape[2:]
    return height, width


def matched(maps: Tensor, query: Tensor, key: Tensor, geometry: str) -> Matching:
    """Match the cells of two views, each on its own grid, outside of autocast.

    Args:
        maps: view-to-tile maps, (B, V, 2, 3), of query, key and further views.
        query: what has a vector for each cell of the query, (B, D, h, w).
        key: the same of the key, (B, D, h', w').
        geometry: see :func:`openselfsup.views.match_cells`.
    """
    with torch.autocast(query.device.type, enabled=False):
        return match_cells(maps[:, 0], maps[:, 1], grid_of(query), geometry,
                           key_grid=grid_of(key))


def in_a_row(first: Tensor, second: Tensor) -> Tensor:
    """List what two views of B tiles have for their N and M cells: (B·N + B·M, ...)."""
    return torch.cat([first.flatten(0, 1), second.flatten(0, 1)])


def cells(grid: Tensor) -> Tensor:
    """List a grid (B, D, h, w) as cells (B, h·w, D), row by row."""
    return grid.flatten(2).transpose(1, 2)


def total_loss(outputs: dict[str, Tensor]) -> Tensor:
    """Sum the terms whose names start with 'loss'.

    Raises:
        UserError: there are none.
    """
    losses = [value for key, value in outputs.items() if key.startswith('loss')]
    if not losses:
        raise UserError('the method returns no loss but ' + (', '.join(outputs) or 'nothing'),
                        where='model.type', expected="at least one scalar tensor whose name "
                        "starts with 'loss'")
    return sum(losses[1:], start=losses[0])


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Return Σ w·L / Σ w over the rows of all ranks, a scalar tensor; 0 if all weights are 0.

    Args:
        losses: w·L of this rank's rows, with their weights, or their sum.
        weights: w of these rows, not negative.
    """
    # Gradients are averaged over ranks: dividing by the ranks' mean of Σ w makes that average the
    # global Σ w·L / Σ w.
    total = distributed.all_reduce_mean(weights.sum())
    return losses.sum() / total.clamp_min(torch.finfo(total.dtype).tiny)


def zero_loss(grid: Tensor, *modules: nn.Module) -> Tensor:
    """Return a loss of 0 that reaches ``grid`` and all parameters of ``modules``.

    For a term of weight 0: DistributedDataParallel finds no parameter unused.
    """
    terms = [(grid.float() * 0).sum()]
    terms += [(parameter * 0).sum() for module in modules for parameter in module.parameters()]
    return torch.stack(terms).sum()
