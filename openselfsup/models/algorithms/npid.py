"""NPID: unsupervised feature learning via non-parametric instance discrimination (1805.01978)."""

import torch
from torch import Tensor, nn

from ... import distributed
from ...errors import UserError
from ...registry import ALGORITHMS, BACKBONES, NECKS
from ...values import Count, Fraction, Positive
from .. import health
from ..losses import sampled_info_nce
from ..memories import SimpleMemory
from ..memories.simple import draw_rows
from ..method import PerTileMethod
from ..parts import built, built_on, check_channels, check_projection, normalize, projection


@ALGORITHMS.register_module()
class NPID(PerTileMethod):
    """A tile is told from others by what it and they were mapped to before.

    As published in OpenSelfSup, the softmax goes over a sample of the memory; the paper estimates
    that over all of it (NCE, sec. 3.2).

    Args:
        backbone: config of a backbone, or a module.
        neck: config of a neck that returns (B, D), or a module.
        length: number N of vectors in the memory; that of the data set's tiles if None.
        feat_dim: size D of the projection.
        neg_num: negatives K of each tile, drawn from the memory with replacement.
        memory_momentum: m of the memory, the weight of the **new** vector.
        temperature: T of the loss.
        ensure_neg: draw negatives from the vectors of other tiles only; False (published default)
            lets a tile's own vector be one of its negatives.

    Attributes:
        memory_bank: the memory; it exists once :meth:`set_data` was called or with ``length``.

    Raises:
        UserError: sizes do not fit.
    """

    memory_bank: SimpleMemory

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module,
                 length: Count | None = None, feat_dim: Count = 128, neg_num: Count = 65536,
                 memory_momentum: Fraction = 0.5, temperature: Positive = 0.07,
                 ensure_neg: bool = True):
        super().__init__()
        self.backbone = built(backbone, BACKBONES)
        self.neck = built_on(neck, NECKS, self.backbone)
        check_channels(self.backbone, self.neck)
        check_projection(self.neck, feat_dim)
        self.feat_dim, self.neg_num = feat_dim, neg_num
        self.memory_momentum, self.temperature = memory_momentum, temperature
        self.ensure_neg = ensure_neg
        self.expect(length)

    def remember(self, length: int) -> None:
        """Give each of N tiles a vector; one tile has none to be told from."""
        if length < 2:
            raise UserError('one tile has no other to be told from', where='model.length',
                            expected='at least 2 tiles')
        self.memory_bank = SimpleMemory(length, self.feat_dim, self.memory_momentum)

    def forward(self, views: list[Tensor], view_to_tile: Tensor | None = None, *,
                index: Tensor) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: one tensor of shape (B, 3, S, S); further ones are not looked at.
            view_to_tile: not used.
            index: places of the tiles in the data set, int64 (B,).
        """
        v = normalize(projection(self.neck, self.backbone(views[0])))
        bank = self.memory_bank.feature_bank
        # CE([v·b_i, v·b_n1, ..., v·b_nK] / T, 0), b_i the memory of the tile itself
        loss, accuracy = sampled_info_nce(v, bank[index], bank, self.draw_negatives(index),
                                          self.temperature)
        self.features = v.detach()
        outputs = {'loss_contra': loss, 'acc_contrast': accuracy,
                   'feature_std': health.feature_std(self.features),
                   'memory_filled': self.memory_bank.filled_fraction(),
                   'memory_age': self.memory_bank.age()}
        if self.training:
            self.memory_bank.update(index, self.features)
        return outputs

    def draw_negatives(self, index: Tensor) -> Tensor:
        """Return K rows of the memory for each tile, int64 (B, K).

        They follow from rank 0's default generator on the CPU: whoever seeds that one before each
        step makes an interrupted run repeatable.
        """
        key = torch.randint(2 ** 63 - 1, (1,)).to(index.device, non_blocking=True)
        return draw_rows(distributed.broadcast(key), self.neg_num, len(self.memory_bank), index,
                         self.ensure_neg)
