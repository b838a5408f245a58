"""What MoCo and its descendants share: two encoders, and the shuffle between them."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import distributed
from ...checkpoints import LoadReport, load_backbone_weights
from ...errors import UserError
from ...registry import BACKBONES, HEADS, NECKS, Registry
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
        cluster: config of a :class:`ClusterHead`, or None.
        adversary: config of a :class:`WeightAdversary` against the query encoder, or None.
        extra_parts: further named parts of both encoders, of which the cluster head wants
            ``group_neck``; those that are None are left out.

    Attributes:
        momentum: may be changed between steps.
        update_keys: whether the next training forward updates the key encoder first. Gradient
            accumulation switches it off for all but the first forward of an optimiser step.
        features: what the last training forward made of its queries, shape (B, D), detached;
            :func:`openselfsup.models.health.effective_rank` wants it.
        loss_scale: what the losses will be multiplied with before backward; the engine sets it.
    """

    needs_geometry = False

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module, momentum: float,
                 shuffle: bool | None, cluster: dict | nn.Module | None = None,
                 adversary: dict | None = None, **extra_parts: nn.Module | None):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UserError(f'momentum is {momentum}', where='model.momentum',
                            expected='a number from 0 to 1')
        parts = {'backbone': built(backbone, BACKBONES), 'neck': built(neck, NECKS)}
        parts.update({name: part for name, part in extra_parts.items() if part is not None})
        check_channels(parts['backbone'], parts['neck'])
        if (cluster is None) != ('group_neck' not in parts):
            raise UserError('a cluster head and its group_neck go together', where='model',
                            expected='both cluster=dict(...) and group_neck=dict(...), or neither')
        self.encoder_q = nn.ModuleDict(parts)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.momentum = momentum
        self.shuffle = shuffle
        self.update_keys = True
        self.features: Tensor | None = None
        self.loss_scale: Tensor | float = 1.0
        self.cluster = built(cluster, HEADS)
        self.adversary = (HEADS.build(adversary, encoder=self.encoder_q)
                          if adversary is not None else None)

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
        if self.adversary is not None:
            self.adversary.copy_norms(self.encoder_q)
        return report

    def add_parts(self, outputs: dict[str, Tensor], images: Tensor, groups: tuple[Tensor, ...],
                  loss_of: Callable[[tuple[Tensor, ...]], Tensor]) -> None:
        """Add the losses and monitors of the cluster head and the adversary, where there are any.

        Args:
            outputs: the method's own losses and monitors; more are added.
            images: the query view, of shape (B, 3, S, S).
            groups: group features (B, D) of queries and keys, or nothing.
            loss_of: maps what :meth:`encode` returns for queries to the method's own loss
                against the keys of this step.
        """
        if self.cluster is not None:
            outputs.update(self.cluster(*groups))
        if self.adversary is not None and self.training:
            outputs.update(self.adversary(self.encoder_q, self.encode, images, outputs, loss_of,
                                          self.loss_scale))

    def group(self, encoder: nn.ModuleDict, maps: list[Tensor]) -> tuple[Tensor, ...]:
        """Return the group features (B, D) of feature maps as a tuple, empty without clusters."""
        return (encoder['group_neck'](maps),) if self.cluster is not None else ()

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


def built(part: dict | nn.Module | None, registry: Registry) -> nn.Module | None:
    """Return ``part``, built by ``registry`` if it is a config; None stays None."""
    return part if part is None or isinstance(part, nn.Module) else registry.build(part)


def check_channels(backbone: nn.Module, neck: nn.Module) -> None:
    """Raise a UserError if ``neck`` does not take the channels that ``backbone`` gives."""
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


def total_loss(outputs: dict[str, Tensor]) -> Tensor:
    """Sum the terms whose names start with 'loss'."""
    return sum(value for key, value in outputs.items() if key.startswith('loss'))


def zero_loss(grid: Tensor, *modules: nn.Module) -> Tensor:
    """Return a loss of 0 that reaches ``grid`` and all parameters of ``modules``.

    For a term of weight 0: DistributedDataParallel finds no parameter unused.
    """
    terms = [(grid.float() * 0).sum()]
    terms += [(parameter * 0).sum() for module in modules for parameter in module.parameters()]
    return torch.stack(terms).sum()
