"""The head of BYOL."""

from torch import Tensor, nn

from ...registry import HEADS, NECKS
from ..parts import built, init_linear, normalize


@HEADS.register_module()
class LatentPredictHead(nn.Module):
    """Predict one network's projection from another's (BYOL, arXiv 2006.07733, eq. 2).

    Args:
        predictor: config of a neck that takes vectors (``with_avg_pool=False``), or a module.
    """

    def __init__(self, predictor: dict | nn.Module):
        super().__init__()
        self.predictor = built(predictor, NECKS)
        init_linear(self.predictor, 'normal')

    def forward(self, online: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, -2·mean cos(predictor(online), target), from -2 to 2.

        The paper adds 2, which no gradient sees.

        Args:
            online: projections (B, D) of one view.
            target: the other network's projections (B, D) of the other view; gets no gradient.
        """
        predicted = normalize(self.predictor([online]))
        return {'loss': -2 * (predicted * normalize(target.detach())).sum(1).mean()}
