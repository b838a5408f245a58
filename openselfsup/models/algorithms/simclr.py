"""SimCLR: a simple framework for contrastive learning (arXiv 2002.05709)."""

import torch
from torch import Tensor, nn

from ... import distributed
from ...checkpoints import LoadReport
from ...errors import UserError
from ...registry import ALGORITHMS, BACKBONES, HEADS, NECKS
from ...values import Positive
from .. import health
from ..losses import nt_xent
from ..method import BaseMethod
from ..parts import built, built_on, check_necks, normalize, projection


@ALGORITHMS.register_module()
class SimCLR(BaseMethod):
    """Two views of a tile agree, against all views of all other tiles of the batch.

    Args:
        backbone: config of a backbone, or a module.
        neck: config of a neck that returns (B, D), or a module.
        temperature: T of the loss.
        adversary: config of a :class:`WeightAdversary`, or None.
        joint: whether both views pass the encoder as one batch, so that batch norms take their
            statistics over both (as the paper does); otherwise each view on its own.
        parts: further necks of the encoder by name, as configs or modules, of a method that is
            built on this one.

    Attributes:
        encoder_q: the encoder, named as in the methods that have a second one.
        features: what the last forward made of the first view, shape (B, D), detached.
    """

    takes_views = 2, 2

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module,
                 temperature: Positive = 0.2, adversary: dict | None = None, joint: bool = False,
                 parts: dict[str, dict | nn.Module] | None = None):
        super().__init__()
        built_backbone = built(backbone, BACKBONES)
        self.encoder_q = nn.ModuleDict({'backbone': built_backbone, **{
            name: built_on(part, NECKS, built_backbone)
            for name, part in {'neck': neck, **(parts or {})}.items()}})
        check_necks(self.encoder_q)
        self.temperature, self.joint = temperature, joint
        self.adversary = (HEADS.build(adversary, encoder=self.encoder_q)
                          if adversary is not None else None)

    @property
    def backbone(self) -> nn.Module:
        """The backbone: what pretraining is for."""
        return self.encoder_q['backbone']

    def load_backbone(self, path: str, allow_partial: bool = False) -> LoadReport:
        """Start from the backbone weights in a file."""
        report = super().load_backbone(path, allow_partial)
        if self.adversary is not None:
            self.adversary.copy_norms(self.encoder_q)
        return report

    def encode(self, encoder: nn.ModuleDict, images: Tensor) -> tuple[Tensor, ...]:
        """Return the normalised projection (B, D) of images (B, 3, S, S), as a tuple of one."""
        return normalize(projection(encoder['neck'], encoder['backbone'](images))),

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: two tensors of shape (B, 3, S, S); an adversary attacks the first.
            view_to_tile: not used but by methods that match cells.
        """
        if self.joint:  # rows 2b and 2b + 1 are tile b
            check_equal_sizes(views)
            both = self.encode(self.encoder_q, torch.stack(views, 1).flatten(0, 1))
            first, second = (tuple(part[i::2] for part in both) for i in range(2))
        else:
            first, second = (self.encode(self.encoder_q, view) for view in views)
        outputs = self.contrast(first, second, view_to_tile)
        if self.adversary is not None and self.training:
            # L_adv = NT-Xent(z1, z0 of the attacked encoder)
            anchor = second[0].detach() if self.adversary.detach_anchor else second[0]
            outputs.update(self.adversary(
                self.encoder_q, self.encode, views[0], outputs,
                lambda attacked: self.instance_loss(anchor, attacked[0]), self.loss_scale))
        self.features = first[0].detach()
        outputs['feature_std'] = health.feature_std(self.features)
        return outputs

    def contrast(self, first: tuple[Tensor, ...], second: tuple[Tensor, ...],
                 view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return the clean losses and monitors of what :meth:`encode` made of both views."""
        return {'loss_instance': self.instance_loss(first[0], second[0]),
                'acc_contrast': retrieval_accuracy(first[0].detach(), second[0].detach())}

    def instance_loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Return NT-Xent of this rank's anchors (B, D) against the tiles of all ranks."""
        everyone = (distributed.all_gather_with_grad(first),
                    distributed.all_gather_with_grad(second))
        check_others(everyone[0])
        return nt_xent(first, second, self.temperature, everyone,
                       offset=distributed.rank() * len(first))


def check_others(tiles: Tensor) -> None:
    """Raise a UserError if a forward pass of all ranks has one tile (rows of a tensor)."""
    if len(tiles) < 2:
        raise UserError('a single tile has no others to be told from', where='global_batch_size',
                        expected='at least 2 tiles in a forward pass of all processes')


def check_equal_sizes(views: list[Tensor]) -> None:
    """Raise a UserError if two views that are to be one batch have different sizes."""
    first, second = (f'{view.shape[-2]} x {view.shape[-1]}' for view in views)
    if first != second:
        raise UserError(f'views of {first} and {second} pixels cannot pass the encoder as one '
                        'batch', where='model.joint',
                        expected='joint=False, or views of one size')


def retrieval_accuracy(first: Tensor, second: Tensor) -> Tensor:
    """Return the share of tiles whose first view is closest to its own second view alone.

    Args:
        first: L2-normalised tensor of shape (B, D).
        second: the same for the other view; candidates are those of this rank.
    """
    similarity = first.float() @ second.float().T
    others = similarity.masked_fill(torch.eye(len(first), dtype=torch.bool,
                                              device=first.device), -torch.inf)
    return (similarity.diagonal() > others.amax(1)).float().mean()
