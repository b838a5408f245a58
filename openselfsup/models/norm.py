"""Norm layers by config. The only file that knows mmcv."""

import functools
import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from .. import distributed
from ..errors import UserError, nearest
from .parts import at_least_float32

NORMS = ('BN', 'SyncBN', 'GN', 'SplitBN')


class SplitBN(nn.BatchNorm2d):
    """Batch norm over each of ``num_splits`` equal parts of the batch.

    What the single-GPU demo of MoCo uses in place of several GPUs: with one process the
    statistics of a whole batch tell which images belong together, and the loss falls without
    better features. The parts are runs of consecutive images. The running statistics follow
    the mean of the parts' statistics. A batch that ``num_splits`` does not divide is cut into
    as many parts as its largest divisor up to ``num_splits`` (logged once).

    Args:
        num_features: number of channels C.
        num_splits: number of parts.
        eps, momentum, affine: as in :class:`torch.nn.BatchNorm2d`.

    Raises:
        UserError: in training, a part holds one value per channel.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, num_features: int, num_splits: int = 8, eps: float = 1e-5,
                 momentum: float = 0.1, affine: bool = True):
        super().__init__(num_features, eps, momentum, affine)
        self.num_splits = num_splits

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (B, C, H, W); in eval mode this is a plain batch norm."""
        if not self.training:
            return super().forward(x)
        splits = largest_divisor(len(x), self.num_splits)
        if splits > 1 and x.numel() == splits * x.shape[1]:
            raise UserError(f'{splits} parts of {len(x)} tiles, with maps of one cell, leave '
                            'SplitBN one value per channel, whose variance is 0',
                            where='norm_cfg.num_splits', expected='fewer parts, more tiles per '
                            'rank and forward pass, or larger views')
        means = self.running_mean.repeat(splits, 1)  # S x C
        variances = self.running_var.repeat(splits, 1)
        parts = [F.batch_norm(part, mean, variance, self.weight, self.bias, True, self.momentum,
                              self.eps)
                 for part, mean, variance in zip(x.chunk(splits), means, variances)]
        self.running_mean.copy_(means.mean(0))
        self.running_var.copy_(variances.mean(0))
        self.num_batches_tracked.add_(1)
        return torch.cat(parts)


class BatchNormOverRanks(nn.BatchNorm1d):
    """Batch norm of vectors, or of small maps, over all rows of all ranks, which have equally many.

    Several ranks compute what one process computes with all their rows, on any device:
    torch's SyncBatchNorm, which knows GPUs only, is for the large maps of backbones.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f'expected a tensor of shape (B, C, ...), not {tuple(x.shape)}')

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (B, C, ...)."""
        if not (self.training and distributed.is_distributed()):
            return super().forward(x)
        dims, shape = [0, *range(2, x.dim())], (-1, *[1] * (x.dim() - 2))
        with torch.autocast(x.device.type, enabled=False):
            x = at_least_float32(x)
            mean = distributed.all_gather_with_grad(x.mean(dims)[None]).mean(0)
            centred = x - mean.view(shape)
            variance = distributed.all_gather_with_grad(centred.square().mean(dims)[None]).mean(0)
            count = x.numel() // x.shape[1] * distributed.world_size()
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
                self.num_batches_tracked.add_(1)
            scale = (variance + self.eps).rsqrt()
            if not self.affine:
                return centred * scale.view(shape)
            return centred * (scale * self.weight).view(shape) + self.bias.view(shape)


@functools.lru_cache
def largest_divisor(batch: int, at_most: int) -> int:
    """Return the largest divisor of ``batch`` up to ``at_most``; the cache logs each case once."""
    divisor = next(d for d in range(min(at_most, batch), 0, -1) if batch % d == 0)
    if divisor != at_most:
        logging.getLogger(__name__).warning(
            'SplitBN: a batch of %d does not divide into %d parts; using %d',
            batch, at_most, divisor)
    return divisor


def norm_layer(norm_cfg: dict) -> Callable[[int], nn.Module]:
    """Return the function from a channel count to a norm layer that ``norm_cfg`` describes.

    Args:
        norm_cfg: dict with ``type`` ('BN', 'SyncBN', 'GN' or 'SplitBN'), ``num_groups`` for GN
            (32 if left out), and arguments of the layer.

    Raises:
        UserError: the type is none of these; from the function, an argument does not suit it.
    """
    kind = norm_cfg.get('type')
    if kind not in NORMS:
        raise UserError(f"no norm layer is called '{kind}'", where='norm_cfg.type',
                        expected='one of ' + ', '.join(NORMS), nearest=nearest(str(kind), NORMS))
    arguments = {key: value for key, value in norm_cfg.items() if key != 'type'}
    if kind == 'GN':
        arguments = {'num_groups': 32, **arguments}

    def build(channels: int) -> nn.Module:
        try:
            if kind == 'SplitBN':
                return SplitBN(channels, **arguments)
            return build_norm_layer({'type': kind, **arguments}, channels)[1]
        except (TypeError, ValueError) as error:
            raise UserError(f'{kind}: {error}', where='norm_cfg') from None

    return build


def has_partial_statistics(module: nn.Module, world_size: int) -> bool:
    """Return whether training statistics of ``module`` come from parts of the global batch.

    Only then does shuffling the keys hide from batch norm which images belong together.
    """
    for layer in module.modules():
        if isinstance(layer, SplitBN):
            return True
        if (world_size > 1 and isinstance(layer, nn.modules.batchnorm._BatchNorm)
                and not isinstance(layer, (nn.SyncBatchNorm, BatchNormOverRanks))):
            return True
    return False
