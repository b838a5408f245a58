"""BYOL: bootstrap your own latent (arXiv 2006.07733)."""

import copy
import math

import torch
from torch import Tensor, nn

from ...checkpoints import LoadReport
from ...errors import UserError
from ...registry import ALGORITHMS, BACKBONES, HEADS, NECKS
from ...values import Fraction
from .. import health
from ..method import BaseMethod
from ..parts import built, built_on, check_channels, normalize, projection


@ALGORITHMS.register_module()
class BYOL(BaseMethod):
    """An online network predicts what its own moving average makes of the other view.

    No negatives: that it does not collapse is owed to the predictor and the slow target. Watch
    ``feature_std``, which falls to 0 if it does.

    Args:
        backbone: config of a backbone, or a module.
        neck: config of the projector, a neck that returns (B, D), or a module.
        head: config of a :class:`LatentPredictHead`, or a module.
        base_momentum: m_0 of the target network; it rises to 1 over the run.

    Attributes:
        online_net: the network that learns.
        target_net: its moving average. Its norms take their statistics from its own batches.
        features: online projections of the first view, shape (B, D), normalised and detached.
    """

    takes_views = 2, 2
    can_shard = True

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module,
                 head: dict | nn.Module, base_momentum: Fraction = 0.996):
        super().__init__()
        built_backbone = built(backbone, BACKBONES)
        self.online_net = nn.ModuleDict(dict(backbone=built_backbone,
                                             neck=built_on(neck, NECKS, built_backbone)))
        check_channels(self.online_net['backbone'], self.online_net['neck'])
        self.target_net = copy.deepcopy(self.online_net).requires_grad_(False)
        if isinstance(head, dict) and isinstance(head.get('predictor'), dict):
            head = dict(head, predictor=built_on(head['predictor'], NECKS, self.online_net['neck'],
                                                 vectors=True))
        self.head = built(head, HEADS)
        check_predictor(getattr(self.head, 'predictor', None),
                        getattr(self.online_net['neck'], 'out_channels', None))
        self.base_momentum = base_momentum

    @property
    def backbone(self) -> nn.Module:
        """The online backbone: what pretraining is for."""
        return self.online_net['backbone']

    def load_backbone(self, path: str, allow_partial: bool = False) -> LoadReport:
        """Start both networks from the backbone weights in a file."""
        report = super().load_backbone(path, allow_partial)
        self.target_net['backbone'].load_state_dict(self.backbone.state_dict())
        return report

    @property
    def momentum(self) -> float:
        """m = 1 - (1 - m_0) (1 + cos(πk/K)) / 2 of step k of K (sec. 3.3)."""
        done = self.progress.step / self.progress.steps
        return 1 - (1 - self.base_momentum) * (1 + math.cos(math.pi * done)) / 2

    @torch.no_grad()
    def end_step(self) -> None:
        """θ_t ← m θ_t + (1 - m) θ_o, once the online network has moved."""
        torch._foreach_lerp_(list(self.target_net.parameters()),
                             list(self.online_net.parameters()), 1 - self.momentum)

    def project(self, network: nn.ModuleDict, view: Tensor) -> Tensor:
        """Return the projections (B, D) of images (B, 3, S, S), not normalised."""
        return projection(network['neck'], network['backbone'](view))

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: two tensors of shape (B, 3, S, S); each is forwarded on its own.
            view_to_tile: not used.
        """
        with torch.no_grad():
            target1, target2 = (self.project(self.target_net, view) for view in views)
        online1, online2 = (self.project(self.online_net, view) for view in views)
        # -2 [mean cos(p(o1), t2) + mean cos(p(o2), t1)] (eq. 2, symmetric, without its constant)
        loss = self.head(online1, target2)['loss'] + self.head(online2, target1)['loss']
        self.features = normalize(online1).detach()
        return {'loss': loss, 'feature_std': health.feature_std(self.features),
                'target_momentum': loss.detach().new_full((), self.momentum)}


def check_predictor(predictor: nn.Module | None, size: int | None) -> None:
    """Raise a UserError if a predictor does not map projections of ``size``, if known, to such."""
    where = 'model.head.predictor'
    if getattr(predictor, 'with_avg_pool', False):
        raise UserError('the predictor takes projections, which have no cells to average over',
                        where=f'{where}.with_avg_pool', expected='False')
    for key, does in ('in_channels', 'takes'), ('out_channels', 'gives'):
        found = getattr(predictor, key, None)
        if size is not None and found is not None and found != size:
            raise UserError(f'the predictor {does} {found} channels, projections have {size}',
                            where=f'{where}.{key}', expected=str(size))
