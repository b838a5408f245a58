"""CA2CL: cluster-aware adversarial contrastive learning (JBHI 2025)."""

from torch import Tensor, nn

from ...registry import ALGORITHMS, HEADS
from ...values import Positive
from ..parts import built, normalize, projection
from .simclr import SimCLR


@ALGORITHMS.register_module()
class CA2CL(SimCLR):
    """SimCLR, plus clusters that each view predicts of the other, plus an attacked encoder.

    With h the backbone's pooled features, z = L2norm(MLP(h)) the instance branch, g the group
    branch (:class:`GroupNeck`), x0 the strong and x1 the weak view:

        L = NT-Xent(z0, z1)                                      instances
          + λ · ½ [CE(g⁰ c¹ᵀ/T, y¹) + CE(g¹ c⁰ᵀ/T, y⁰)]           clusters c, y of each view
          + NT-Xent(z1, z0'),    z0' = z of x0 with w + r        adversary
        r = ε ∇_w L_clean / ‖∇_w L_clean‖,    w the first convolution.

    Args:
        backbone: config of a backbone, or a module.
        neck: config of the instance branch, a neck that returns (B, D), or a module.
        group_neck: config of the group branch, a neck that returns (B, D'), or a module.
        cluster: config of a :class:`ClusterHead`, or a module.
        temperature: T of the instance and adversarial losses.
        adversary: config of a :class:`WeightAdversary`, or None.
    """

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module,
                 group_neck: dict | nn.Module, cluster: dict | nn.Module,
                 temperature: Positive = 0.2, adversary: dict | None = None):
        super().__init__(backbone, neck, temperature, adversary,
                         parts=dict(group_neck=group_neck))
        self.cluster = built(cluster, HEADS)

    def encode(self, encoder: nn.ModuleDict, images: Tensor) -> tuple[Tensor, ...]:
        """Return z (B, D) and g (B, D'), both normalised, of images (B, 3, S, S)."""
        maps = encoder['backbone'](images)
        return (normalize(projection(encoder['neck'], maps)),
                normalize(projection(encoder['group_neck'], maps, 'group_neck')))

    def contrast(self, first: tuple[Tensor, ...], second: tuple[Tensor, ...],
                 view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return the instance and cluster losses of what :meth:`encode` made of both views."""
        return {**super().contrast(first, second), **self.cluster(first[1], second[1])}
