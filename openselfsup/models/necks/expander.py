"""VICReg's expanders: embeddings wider than the features, of images or of their cells."""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from torch import Tensor, nn

from ...errors import UserError
from ...registry import NECKS
from ...values import Count, Filled
from ..norm import BatchNormOverRanks

Norm = Literal['BN', 'LN']
NORMS = get_args(Norm)


@NECKS.register_module()
class Expander(nn.Sequential):
    """Linear layer, norm, ReLU, repeated; at last a linear layer without bias.

    VICRegL (arXiv 2210.01571, sec. 4.1). Its tensors have the names of the published ones.

    Args:
        in_channels: size C of the features.
        channels: width of each layer, the last of which is the size D of the embedding.
        norm: 'BN', batch norm over the rows of all ranks, or 'LN', layer norm (ConvNeXt).
    """

    def __init__(self, in_channels: Count, channels: Annotated[Sequence[Count], Filled()],
                 norm: Norm = 'BN'):
        if norm not in NORMS:
            raise UserError(f"an expander has no norm '{norm}'", where='norm',
                            expected='one of ' + ', '.join(NORMS))
        *hidden, out_channels = channels
        layers: list[nn.Module] = []
        width = in_channels
        for wider in hidden:
            layers += [nn.Linear(width, wider),
                       (BatchNormOverRanks if norm == 'BN' else nn.LayerNorm)(wider),
                       nn.ReLU(inplace=True)]
            width = wider
        super().__init__(*layers, nn.Linear(width, out_channels, bias=False))
        self.in_channels, self.out_channels = in_channels, out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map features (..., C) to embeddings (..., D); batch norm is over all vectors."""
        return super().forward(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
