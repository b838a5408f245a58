"""What MoCo and its descendants share: two encoders, and the shuffle between them."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import distributed
from ...checkpoints import LoadReport, load_backbone_weights
from ...errors import UserError
from ...registry import BACKBONES, NECKS, Registry
from ..norm import has_partial_statistics


class MomentumContrast(nn.Module):
    """A query encoder, a key encoder that is its moving average, and shuffled keys.

    Momentum contrast, arXiv 1911.05722. A subclass defines :meth:`encode` and ``forward``.

    Keys are shuffled over all images of all ranks before they are encoded, so that batch
    statistics do not tell which query and key belong together (sec. 3.3), and brought back into
    order afterwards. The permutation is drawn from rank 0's default generator on the CPU: whoever
    seeds that one before each step makes an interrupted run repeatable.

    Args:
        backbone: config of a backbone, or a module with ``out_channels``.
        neck: config of a neck, or a module.
        momentum: m of the moving average, in [0, 1].
        shuffle: whether to shuffle keys; None shuffles where batch statistics are taken over
            parts of the global batch (several ranks without SyncBN, or SplitBN).
        extra_parts: further named parts of both encoders.

    Attributes:
        momentum: may be changed between steps.
        update_keys: whether the next training forward updates the key encoder first. Gradient
            accumulation switches it off for all but the first forward of an optimiser step.
        features: what the last training forward made of its queries, shape (B, D), detached;
            :func:`openselfsup.models.health.effective_rank` wants it.
    """

    needs_geometry = False

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module, momentum: float,
                 shuffle: bool | None, **extra_parts: nn.Module):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UserError(f'momentum is {momentum}', where='model.momentum',
                            expected='a number from 0 to 1')
        parts = {'backbone': built(backbone, BACKBONES), 'neck': built(neck, NECKS), **extra_parts}
        _check_channels(parts['backbone'], parts['neck'])
        self.encoder_q = nn.ModuleDict(parts)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.momentum = momentum
        self.shuffle = shuffle
        self.update_keys = True
        self.features: Tensor | None = None

    @property
    def backbone(self) -> nn.Module:
        """The query backbone: what pretraining is for."""
        return self.encoder_q['backbone']

    def encode(self, encoder: nn.ModuleDict, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, S, S) to the tensors, all of B rows, that the method contrasts."""
        raise NotImplementedError

    def load_backbone(self, path: str, allow_partial: bool = False) -> LoadReport:
        """Start both encoders from the backbone weights in a file.

        Takes and returns what :func:`openselfsup.checkpoints.load_backbone_weights` does.
        """
        report = load_backbone_weights(self.backbone, path, allow_partial=allow_partial)
        self.encoder_k['backbone'].load_state_dict(self.backbone.state_dict())
        return report

    @torch.no_grad()
    def encode_keys(self, images: Tensor) -> tuple[Tensor, ...]:
        """Update the key encoder, then encode ``images`` with it, without gradient.

        Returns:
            What :meth:`encode` returns, in the order of ``images``.
        """
        if self.training and self.update_keys:
            self._update_key_encoder()
        world, rank = distributed.world_size(), distributed.rank()
        shuffle = self.shuffle
        if shuffle is None:
            shuffle = has_partial_statistics(self.encoder_k, world)
        if not (shuffle and self.training):
            return self.encode(self.encoder_k, images)

        order = torch.randperm(world * len(images)).to(images.device, non_blocking=True)
        order = distributed.broadcast(order).view(world, -1)
        restored = order.flatten().argsort().view(world, -1)
        shuffled = self.encode(self.encoder_k, distributed.all_gather(images)[order[rank]])
        return tuple(distributed.all_gather(output)[restored[rank]] for output in shuffled)

    def _update_key_encoder(self) -> None:
        """θ_k ← m θ_k + (1 - m) θ_q (eq. 2); buffers stay the key encoder's own."""
        torch._foreach_lerp_(list(self.encoder_k.parameters()), list(self.encoder_q.parameters()),
                             1 - self.momentum)


def built(part: dict | nn.Module, registry: Registry) -> nn.Module:
    """Return ``part``, built by ``registry`` if it is a config."""
    return part if isinstance(part, nn.Module) else registry.build(part)


def _check_channels(backbone: nn.Module, neck: nn.Module) -> None:
    offered = getattr(backbone, 'out_channels', [None])[-1]
    wanted = getattr(neck, 'in_channels', None)
    if offered and wanted and offered != wanted:
        raise UserError(f'the neck takes {wanted} channels, the backbone gives {offered}',
                        where='model.neck.in_channels', expected=str(offered))


def check_projection(neck: nn.Module, dim: int) -> None:
    """Raise a UserError if ``neck`` does not project to the queue's ``dim``."""
    size = getattr(neck, 'out_channels', dim)
    if size != dim:
        raise UserError(f'the queue holds vectors of size {dim}, the neck projects to {size}',
                        where='model.feat_dim', expected=str(size))


def normalize(x: Tensor) -> Tensor:
    """L2-normalise the last dimension, in float32 at least."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def cells(grid: Tensor) -> Tensor:
    """List a grid (B, D, h, w) as cells (B, h·w, D), row by row."""
    return grid.flatten(2).transpose(1, 2)


def zero_loss(grid: Tensor, *modules: nn.Module) -> Tensor:
    """Return a loss of 0 that reaches ``grid`` and all parameters of ``modules``.

    For a term of weight 0: DistributedDataParallel finds no parameter unused.
    """
    terms = [(grid.float() * 0).sum()]
    terms += [(parameter * 0).sum() for module in modules for parameter in module.parameters()]
    return torch.stack(terms).sum()
