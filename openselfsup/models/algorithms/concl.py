"""ConCL: concept contrastive learning (arXiv 2207.06733, ECCV 2022)."""

from typing import Annotated

import torch
from torch import Tensor, nn

from ... import distributed
from ...errors import UserError
from ...registry import ALGORITHMS
from ...values import Count, Fraction, Positive, Range, Whole
from .. import health
from ..concepts import Concepts, LabelMaps
from ..losses import info_nce
from ..memories import Queue
from ..method import Geometry
from ..parts import check_maps, check_projection, dense_projections, normalize, projection
from .momentum import MomentumContrast


class WithConcepts(MomentumContrast):
    """Momentum contrast with a contrast of concepts beside its own; see :class:`ConCL`."""

    needs_geometry = True
    takes_views = 3, 3  # queries, keys, and the reference, which holds both
    needs_reference = True
    concepts: Concepts
    stage: int
    warmup_epochs: int
    keys_in_order: bool
    dense_neck: bool = False  # whether the neck projects cells, too

    def add_concepts(self, concepts: Concepts, cluster_indice: int, warmup_epochs: int,
                     keys_in_order: bool) -> None:
        """Add the concept branch; arguments are those of :class:`ConCL`.

        Raises:
            UserError: the neck has batch norm, whose statistics would be those of concepts that
                a tile lacks as well, or does not pool; or the backbone does not return the stage.
        """
        if any(isinstance(layer, nn.modules.batchnorm._BatchNorm)
               for layer in self.encoder_q['neck'].modules()):
            raise UserError('concepts, of which every tile has another number, go through the '
                            'neck, but it has batch norm', where='model.neck',
                            expected='a neck without, such as NonLinearNeck or DenseCLNeck')
        if not getattr(self.encoder_q['neck'], 'with_avg_pool', True):
            raise UserError('concepts have one cell each, but the neck takes all cells of a view',
                            where='model.neck.with_avg_pool', expected='True')
        self.concepts, self.stage = concepts, place_of_stage(self.backbone, cluster_indice)
        self.warmup_epochs, self.keys_in_order = warmup_epochs, keys_in_order

    def set_geometry(self, geometry: Geometry) -> None:
        """Remember of what kind the maps are; rounded label maps know no oblique views."""
        self.concepts.check_geometry(geometry)
        super().set_geometry(geometry)

    def encode(self, encoder: nn.ModuleDict, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, S, S) to what the losses need, not normalised.

        Returns:
            What the neck makes of them, the global projection (B, D) first, and the last feature
            map (B, C, h, w).
        """
        maps, neck = encoder['backbone'](images), encoder['neck']
        found = dense_projections(neck, maps) if self.dense_neck else (projection(neck, maps),)
        return *found, maps[-1]

    def is_warm(self) -> bool:
        """Return whether the first epochs, of the instance loss alone, are over."""
        return self.progress.epoch >= self.warmup_epochs

    def contrast_concepts(self, q_map: Tensor, k_map: Tensor, reference: Tensor,
                          maps: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the concept loss, without its weight, and its monitors.

        Args:
            q_map: last feature map of the queries, (B, C, h, w).
            k_map: that of the keys, in the order of the images.
            reference: the reference view, (B, 3, S, S).
            maps: view-to-tile maps of queries, keys and reference, (B, 3, 2, 3).
        """
        if not self.keys_in_order and self.key_order is not None:  # in train mode
            k_map = distributed.all_gather(k_map)[self.key_order]
        with torch.no_grad():
            stage = self.encoder_k['backbone'](reference)[self.stage]
        return self.concepts(q_map, k_map, stage, maps, self.geometry,
                             lambda pooled: projections(self.encoder_q, [pooled])[0],
                             lambda pooled: projections(self.encoder_k, [pooled])[0])


@ALGORITHMS.register_module()
class ConCL(WithConcepts):
    """MoCo v2 whose units are concepts: cells of a tile that look alike, pooled in both views.

    The key encoder's map of a reference view, which holds both others, is clustered tile by tile.
    With P the mean of a view's cells of one concept, z = L2norm(neck(P)), and u a queue of its own:

        L = w · InfoNCE(z_q, z_k, u) + (1 - w) · InfoNCE(q, k, queue),    w the concept weight,

    the first over all concepts that both views show (eq. 2). In the first epochs L is MoCo's.

    Published code pools keys that batch-shuffling moved to other tiles; here they are in order,
    and ranks share one queue. The other defaults are published; ``label_maps='exact',
    pad_queue=False`` mends them, ``keys_in_order=False`` is the published run.

    Args:
        backbone: config of a backbone, or a module; it returns stage ``cluster_indice`` too.
        neck: config of a neck without batch norm that pools and returns (B, D), or a module.
        queue_len: number of keys in each of the two queues.
        feat_dim: size D of the projection.
        momentum: m of the key encoder.
        temperature: T of both losses.
        concept_weight: w in [0, 1].
        warmup_epochs: how many epochs begin with the instance loss alone.
        num_concepts, kmeans_iters, label_maps, pad_queue: see :class:`Concepts`.
        cluster_indice: the stage whose cells are clustered, 1 to 4, stride 4 to 32.
        keys_in_order: whether a view's keys are pooled by its own concepts (False: those of the
            tile that shuffling put in its place, as published; it turns shuffling on).
        geometry: see :class:`Concepts`; a run sets it to what its recipes are.
        shuffle: see :class:`MomentumContrast`.

    Raises:
        UserError: a setting is impossible, or the backbone does not return that stage.
    """

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module, queue_len: Count = 16384,
                 feat_dim: Count = 128, momentum: Fraction = 0.999, temperature: Positive = 0.2,
                 concept_weight: Fraction = 1.0, warmup_epochs: Whole = 20,
                 num_concepts: Count = 8, kmeans_iters: Count = 10,
                 cluster_indice: Annotated[int, Range(1, 4)] = 3,
                 label_maps: LabelMaps = 'rounded', pad_queue: bool = True,
                 keys_in_order: bool = True, geometry: Geometry = 'axis_aligned',
                 shuffle: bool | None = None):
        super().__init__(backbone, neck, momentum, shuffled(shuffle, keys_in_order))
        check_projection(self.encoder_q['neck'], feat_dim)
        if not 0 <= concept_weight <= 1:
            raise UserError(f'concept_weight is {concept_weight}', where='model.concept_weight',
                            expected='a number from 0 to 1')
        self.queue = Queue(queue_len, feat_dim)
        self.temperature, self.concept_weight = temperature, concept_weight
        self.add_concepts(
            Concepts(num_concepts, queue_len, feat_dim, temperature, kmeans_iters, label_maps,
                     pad_queue), cluster_indice, warmup_epochs, keys_in_order)
        self.set_geometry(geometry)

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors.

        Args:
            views: three tensors of shape (B, 3, S, S): queries, keys, and the reference, which
                holds both (:class:`openselfsup.views.UnionView`).
            view_to_tile: float32 tensor of shape (B, 3, 2, 3), maps from view to tile fractions.
        """
        maps = check_maps(view_to_tile, self)
        k, k_map = self.encode_keys(views[1])  # first, while nothing is kept for backward
        q, q_map = self.encode(self.encoder_q, views[0])
        q, k = normalize(q), normalize(k)
        loss_instance = info_nce(q, k, self.queue.vectors, self.temperature)
        outputs = {'acc_contrast': health.contrastive_accuracy(q, k, self.queue.vectors)}

        weight = self.concept_weight if self.is_warm() else 0.
        outputs['loss_instance'] = (1 - weight) * loss_instance
        if weight:
            loss, monitors = self.contrast_concepts(q_map, k_map, views[2], maps)
            outputs.update(monitors, loss_concept=weight * loss)

        self.features = q.detach()
        outputs.update(feature_std=health.feature_std(self.features),
                       queue_filled=self.queue.filled_fraction(),
                       concept_queue_filled=self.concepts.queue.filled_fraction())
        if self.training:
            self.queue.enqueue(distributed.all_gather(k))
        return outputs


def projections(encoder: nn.ModuleDict, maps: list[Tensor]) -> tuple[Tensor, ...]:
    """Return what a neck makes of feature maps, as a tuple where it is (B, D) alone."""
    found = encoder['neck'](maps)
    return (found,) if isinstance(found, Tensor) else found


def shuffled(shuffle: bool | None, keys_in_order: bool) -> bool | None:
    """Return whether to shuffle keys; without their order they always are.

    Raises:
        UserError: the two contradict each other.
    """
    if shuffle is False and not keys_in_order:
        raise UserError('keys that are not shuffled are in order', where='model.keys_in_order',
                        expected='keys_in_order=True, or shuffle=True')
    return shuffle if keys_in_order else True


def place_of_stage(backbone: nn.Module, stage: int) -> int:
    """Return which of a backbone's feature maps is that of a stage, 1 to 4.

    A backbone that says neither ``stages`` nor ``out_indices`` returns its last stages, up to the
    4th.

    Raises:
        UserError: it does not return the stage.
    """
    channels: list[int] = getattr(backbone, 'out_channels', [0])
    named = getattr(backbone, 'stages', None) or getattr(backbone, 'out_indices', None)
    stages = tuple(range(5 - len(channels), 5) if named is None else named)
    if stage not in stages:
        raise UserError(f'concepts are to be found in stage {stage}, but the backbone returns '
                        f"{', '.join(map(str, stages))} only", where='model.cluster_indice',
                        expected=f"one of {', '.join(map(str, stages))}, or a backbone with "
                        + (f'out_indices={tuple(sorted({*stages, stage}))}'
                           if not hasattr(backbone, 'stages') else 'more out_indices'))
    return stages.index(stage)
