"""MoCo: momentum contrast (v1 arXiv 1911.05722, v2 arXiv 2003.04297)."""

from torch import Tensor, nn

from ... import distributed
from ...registry import ALGORITHMS
from ...values import Count, Fraction, Positive
from .. import health
from ..losses import info_nce
from ..memories import Queue
from ..parts import check_projection, normalize, projection
from .momentum import MomentumContrast


@ALGORITHMS.register_module(name=['MoCo', 'MOCO'])
class MoCo(MomentumContrast):
    """Two views of a tile agree, against a queue of views of other tiles.

    Version 1 is a ``LinearNeck`` and temperature 0.07; version 2 a ``NonLinearNeck``, 0.2, and
    stronger augmentation.

    Args:
        backbone: config of a backbone, or a module.
        neck: config of a neck that returns (B, D), or a module.
        queue_len: number K of keys in the queue.
        feat_dim: size D of the projection.
        momentum: m of the key encoder.
        temperature: T of the loss.
        group_neck: config of a neck for the cluster head, or a module.
        shuffle, cluster, adversary: see :class:`MomentumContrast`.
    """

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module, queue_len: Count = 16384,
                 feat_dim: Count = 128, momentum: Fraction = 0.999, temperature: Positive = 0.2,
                 shuffle: bool | None = None, group_neck: dict | nn.Module | None = None,
                 cluster: dict | nn.Module | None = None, adversary: dict | None = None):
        super().__init__(backbone, neck, momentum, shuffle, cluster, adversary,
                         group_neck=group_neck)
        check_projection(self.encoder_q['neck'], feat_dim)
        self.queue = Queue(queue_len, feat_dim)
        self.temperature = temperature

    def encode(self, encoder: nn.ModuleDict, images: Tensor) -> tuple[Tensor, ...]:
        """Return the normalised projection (B, D) of images (B, 3, S, S).

        It is followed by the group features (B, D') where there is a cluster head.
        """
        maps = encoder['backbone'](images)
        return normalize(projection(encoder['neck'], maps)), *self.group(encoder, maps)

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: two tensors of shape (B, 3, S, S), queries and keys.
            view_to_tile: not used.
        """
        key, *group_k = self.encode_keys(views[1])  # first, while nothing is kept for backward
        query, *group_q = self.encode(self.encoder_q, views[0])

        # -log [exp(q·k⁺/T) / (exp(q·k⁺/T) + Σ_j exp(q·k_j/T))], mean over the batch
        loss = info_nce(query, key, self.queue.vectors, self.temperature)

        self.features = query.detach()
        outputs = {'loss_contra': loss,
                   'acc_contrast': health.contrastive_accuracy(query, key, self.queue.vectors),
                   'feature_std': health.feature_std(self.features),
                   'queue_filled': self.queue.filled_fraction()}
        self.add_parts(outputs, views[0], (*group_q, *group_k), lambda attacked: info_nce(
            attacked[0], key, self.queue.vectors, self.temperature))
        if self.training:
            self.queue.enqueue(distributed.all_gather(key))
        return outputs
