"""What MoCo and its descendants share: two encoders, and the shuffle between them."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ... import distributed
from ...checkpoints import LoadReport
from ...errors import UserError
from ...registry import BACKBONES, HEADS, NECKS
from ..method import BaseMethod
from ..norm import has_partial_statistics
from ..parts import built, built_on, check_necks, normalize, projection


class MomentumContrast(BaseMethod, ABC):
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
        extra_parts: configs of further named necks of both encoders, or modules; the cluster
            head wants ``group_neck``; those that are None are left out.

    Attributes:
        momentum: may be changed between steps.
        key_order: which images of the global batch this rank encoded as its last keys, int64
            (B,), or None where they were not shuffled.
        features: what the last training forward made of its queries, shape (B, D), detached;
            :func:`openselfsup.models.health.effective_rank` wants it.
    """

    takes_views: tuple[int, int | None] = 2, 2  # queries and keys
    key_order: Tensor | None = None

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module, momentum: float,
                 shuffle: bool | None, cluster: dict | nn.Module | None = None,
                 adversary: dict | None = None, **extra_parts: dict | nn.Module | None):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UserError(f'momentum is {momentum}', where='model.momentum',
                            expected='a number from 0 to 1')
        built_backbone = built(backbone, BACKBONES)
        parts = {'backbone': built_backbone, 'neck': built_on(neck, NECKS, built_backbone)}
        parts.update({name: built_on(part, NECKS, built_backbone)
                      for name, part in extra_parts.items() if part is not None})
        if (cluster is None) != ('group_neck' not in parts):
            raise UserError('a cluster head and its group_neck go together', where='model',
                            expected='both cluster=dict(...) and group_neck=dict(...), or neither')
        self.encoder_q = nn.ModuleDict(parts)
        check_necks(self.encoder_q)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.momentum = momentum
        self.shuffle = shuffle
        self.cluster = built(cluster, HEADS)
        self.adversary = (HEADS.build(adversary, encoder=self.encoder_q)
                          if adversary is not None else None)

    @property
    def backbone(self) -> nn.Module:
        """The query backbone: what pretraining is for."""
        return self.encoder_q['backbone']

    @property
    def statistics_tell_pairs(self) -> bool:
        """Whether batch norm, over one whole batch, tells which query and key belong together."""
        hidden = has_partial_statistics(self.encoder_k, distributed.world_size())
        return any(isinstance(layer, nn.modules.batchnorm._BatchNorm)
                   for layer in self.backbone.modules()) and (not hidden or self.shuffle is False)

    @abstractmethod
    def encode(self, encoder: nn.ModuleDict, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, S, S) to the tensors, all of B rows, that the method contrasts."""

    def load_backbone(self, path: str, allow_partial: bool = False) -> LoadReport:
        """Start both encoders from the backbone weights in a file."""
        report = super().load_backbone(path, allow_partial)
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
        """Return the group features (B, D) of feature maps, normalised: none without clusters."""
        if self.cluster is None:
            return ()
        return normalize(projection(encoder['group_neck'], maps, 'group_neck')),

    @torch.no_grad()
    def encode_keys(self, images: Tensor) -> tuple[Tensor, ...]:
        """Update the key encoder, then encode ``images`` with it, without gradient.

        It moves in the first pass of an optimiser step only.

        Returns:
            What :meth:`encode` returns, in the order of ``images``.
        """
        if self.training and self.first_pass:
            self._update_key_encoder()
        world, rank = distributed.world_size(), distributed.rank()
        shuffle = self.shuffle
        if shuffle is None:
            shuffle = has_partial_statistics(self.encoder_k, world)
        if not (shuffle and self.training):
            self.key_order = None
            return self.encode(self.encoder_k, images)

        order = draw_order(world * len(images), images.device).view(world, -1)
        restored, self.key_order = order.flatten().argsort().view(world, -1), order[rank]
        shuffled = self.encode(self.encoder_k, distributed.all_gather(images)[self.key_order])
        return tuple(distributed.all_gather(output)[restored[rank]] for output in shuffled)

    def _update_key_encoder(self) -> None:
        """θ_k ← m θ_k + (1 - m) θ_q (eq. 2); buffers stay the key encoder's own."""
        torch._foreach_lerp_(list(self.encoder_k.parameters()), list(self.encoder_q.parameters()),
                             1 - self.momentum)


def draw_order(count: int, device: torch.device) -> Tensor:
    """Draw the order of ``count`` images, the same on all ranks, int64 (count,)."""
    return distributed.broadcast(torch.randperm(count).to(device, non_blocking=True))
