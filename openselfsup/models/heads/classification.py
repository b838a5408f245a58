"""Linear classifiers of images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ...registry import HEADS
from ...values import Count, Whole
from ..norm import BatchNormOverRanks
from ..parts import at_least_float32, image_vectors, init_linear


@torch.no_grad()
def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the share of rows of scores (B, K) whose largest is that of their label (B,)."""
    return (scores.argmax(1) == labels).float().mean()


@HEADS.register_module()
class ClsHead(nn.Module):
    """One linear layer and the cross entropy.

    Args:
        in_channels: channels C of the map, or size of the vectors.
        num_classes: number K of classes.
        with_avg_pool: see :func:`image_vectors`; False for what a neck has pooled.
    """

    def __init__(self, in_channels: Count, num_classes: Count, with_avg_pool: bool = False):
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        self.with_avg_pool = with_avg_pool
        self.fc_cls = nn.Linear(in_channels, num_classes)
        init_linear(self, 'normal')

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map feature maps, the last of shape (B, C, h, w) or (B, C), to scores (B, K).

        Raises:
            UserError: vectors are to be pooled, or the sizes do not fit.
        """
        if self.with_avg_pool and maps[-1].dim() == 2:
            raise UserError('the head is to pool what is pooled already',
                            where='model.head.with_avg_pool', expected='False')
        vectors = image_vectors(maps, self.with_avg_pool)
        if vectors.shape[1] != self.in_channels:
            unpooled = not self.with_avg_pool and maps[-1].dim() > 2
            raise UserError(
                f'the head takes vectors of size {self.in_channels}, but is given '
                f"{vectors.shape[1]} numbers{' of whole maps' if unpooled else ''}",
                where='model.head.in_channels', expected=str(vectors.shape[1])
                + (f', or with_avg_pool=True and {maps[-1].shape[1]}' if unpooled else ''))
        return self.fc_cls(vectors)

    def loss(self, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, the mean cross entropy, and ``acc``, the share that is right.

        Args:
            scores: of :meth:`forward`, (B, K).
            labels: classes, int64 (B,).
        """
        return {'loss': F.cross_entropy(at_least_float32(scores), labels),
                'acc': accuracy(scores, labels)}


@HEADS.register_module()
class MultiClsHead(nn.Module):
    """A linear classifier of its own on each of several stages of a backbone.

    Goyal et al., arXiv 1905.01235, sec. 5.2: each map is pooled to about 9,000 numbers, which
    for a ResNet-50 are 12², 6², 4², 3² and 2² cells of 64, 256, 512, 1,024 and 2,048 channels,
    then normalised by channel.

    Args:
        in_channels: channels of each map that the backbone returns.
        num_classes: number K of classes.
        in_indices: which stages these are (the backbone's ``out_indices``), for the losses'
            names; 0, 1, ... if None.
        affine: whether the norms have weights; OpenSelfSup's configs leave them out.
    """

    POOLED = 9216  # at most so many numbers of each map

    def __init__(self, in_channels: Sequence[Count], num_classes: Count,
                 in_indices: Sequence[Whole] | None = None, affine: bool = True):
        super().__init__()
        self.in_indices = list(in_indices) if in_indices is not None else [*range(len(in_channels))]
        if len(self.in_indices) != len(in_channels):
            raise UserError(f'{len(self.in_indices)} stages have {len(in_channels)} numbers of '
                            'channels', where='model.head.in_channels',
                            expected='as many as in_indices')
        self.in_channels, self.num_classes = list(in_channels), num_classes
        self.sides = [max(1, int((self.POOLED / channels) ** 0.5)) for channels in in_channels]
        self.norms = nn.ModuleList(BatchNormOverRanks(channels, affine=affine)
                                   for channels in in_channels)
        self.fcs = nn.ModuleList(nn.Linear(channels * side ** 2, num_classes)
                                 for channels, side in zip(in_channels, self.sides))
        init_linear(self, 'normal')

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map the feature maps (B, C, h, w) of all stages to scores (B, K) of each.

        Raises:
            UserError: there are other stages, or their channels are others.
        """
        found = [x.shape[1] for x in maps]
        if found != self.in_channels:
            raise UserError(f'the head takes maps of {self.in_channels} channels, but is given '
                            f'{found}', where='model.head.in_channels', expected=str(found))
        return [fc(norm(F.adaptive_avg_pool2d(x, side)).flatten(1))
                for x, side, norm, fc in zip(maps, self.sides, self.norms, self.fcs, strict=True)]

    def loss(self, scores: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Return ``loss_stage{i}`` and ``acc_stage{i}`` for each stage i; see :class:`ClsHead`."""
        outputs = {}
        for i, rows in zip(self.in_indices, scores, strict=True):
            outputs[f'loss_stage{i}'] = F.cross_entropy(at_least_float32(rows), labels)
            outputs[f'acc_stage{i}'] = accuracy(rows, labels)
        return outputs
