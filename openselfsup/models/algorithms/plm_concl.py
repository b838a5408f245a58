"""PLM with ConCL: places and concepts (arXiv 2212.12105 with arXiv 2207.06733)."""

from typing import Annotated

from torch import Tensor, nn

from ... import distributed
from ...errors import UserError
from ...registry import ALGORITHMS
from ...values import Count, Fraction, Positive, Range, Whole
from .. import health
from ..concepts import Concepts, LabelMaps
from ..losses import info_nce
from ..method import Geometry
from ..parts import cells, check_maps, matched, normalize
from .concl import WithConcepts, shuffled
from .plm import PLM, DenseReduction


@ALGORITHMS.register_module(name=['PLMConCL', 'ConCLLoc'])
class PLMConCL(WithConcepts, PLM):
    """Cells matched by where on the tile they lie, and concepts, cells that look alike.

    With PLM's dense loss over matched cells and ConCL's loss over concepts, which are pooled from
    the backbone's map and projected by the neck's global branch:

        L = w_c · L_concept + w_d · L_dense + (1 - w_c - w_d) · L_instance.

    In the first epochs L is the instance loss alone, while the dense queue already fills. Of what
    is published, keys are in order here as in :class:`ConCL`.

    Args:
        backbone: config of a backbone, or a module; it returns stage ``cluster_indice`` too.
        neck: config of a :class:`DenseCLNeck`, or a module with its outputs.
        matching_neck: config of a matching neck, or a module.
        queue_len: number of keys in each of the three queues.
        feat_dim: size D of all projections.
        momentum: m of the key encoder.
        temperature: T of all losses.
        concept_weight: w_c in [0, 1].
        dense_weight: w_d in [0, 1 - w_c].
        dense_reduction: see :class:`PLM`.
        warmup_epochs, cluster_indice, keys_in_order: see :class:`ConCL`.
        num_concepts, kmeans_iters, label_maps, pad_queue: see :class:`Concepts`.
        geometry: 'axis_aligned' or 'affine', what ``view_to_tile`` may be; a run sets it.
        shuffle: see :class:`MomentumContrast`.

    Raises:
        UserError: a setting is impossible, or the backbone does not return that stage.
    """

    dense_neck = True

    def __init__(self, backbone: dict | nn.Module, neck: dict | nn.Module,
                 matching_neck: dict | nn.Module, queue_len: Count = 16384, feat_dim: Count = 128,
                 momentum: Fraction = 0.999, temperature: Positive = 0.2,
                 concept_weight: Fraction = 0.5, dense_weight: Fraction = 0.5,
                 dense_reduction: DenseReduction = 'mean', warmup_epochs: Whole = 20,
                 num_concepts: Count = 8, kmeans_iters: Count = 10,
                 cluster_indice: Annotated[int, Range(1, 4)] = 3,
                 label_maps: LabelMaps = 'rounded', pad_queue: bool = True,
                 keys_in_order: bool = True, geometry: Geometry = 'axis_aligned',
                 shuffle: bool | None = None):
        super().__init__(backbone, neck, matching_neck, queue_len, feat_dim, momentum, temperature,
                         dense_reduction=dense_reduction,
                         shuffle=shuffled(shuffle, keys_in_order))
        if not (concept_weight >= 0 and dense_weight >= 0 and concept_weight + dense_weight <= 1):
            raise UserError(f'concept_weight is {concept_weight} and dense_weight {dense_weight}',
                            where='model', expected='two numbers from 0 with a sum of at most 1')
        self.concept_weight, self.dense_weight = concept_weight, dense_weight
        self.add_concepts(
            Concepts(num_concepts, queue_len, feat_dim, temperature, kmeans_iters, label_maps,
                     pad_queue), cluster_indice, warmup_epochs, keys_in_order)
        self.set_geometry(geometry)

    def forward(self, views: list[Tensor],
                view_to_tile: Tensor | None = None) -> dict[str, Tensor]:
        """Return losses and monitors; arguments are those of :meth:`ConCL.forward`."""
        maps = check_maps(view_to_tile, self)
        k, k_grid, k_pooled, k_map = self.encode_keys(views[1])
        q, q_grid, _, q_map = self.encode(self.encoder_q, views[0])
        q, k = normalize(q), normalize(k)
        matching = matched(maps, q_grid, k_grid, self.geometry)
        loss_instance = info_nce(q, k, self.queue.vectors, self.temperature)
        anchors, positives, coverage = self.matched_cells(cells(q_grid), cells(k_grid), matching)
        loss_dense = self.dense_loss(anchors, positives, coverage)

        w_c, w_d = (self.concept_weight, self.dense_weight) if self.is_warm() else (0., 0.)
        outputs = {
            'loss_instance': (1 - w_c - w_d) * loss_instance,
            'loss_dense': w_d * loss_dense,
            'acc_contrast': health.contrastive_accuracy(q, k, self.queue.vectors),
            'acc_dense': health.contrastive_accuracy(
                anchors, positives, self.queue_dense.vectors, coverage, at_most=256)}
        if w_c:
            loss_concept, monitors = self.contrast_concepts(q_map, k_map, views[2], maps)
            outputs.update(monitors, loss_concept=w_c * loss_concept)

        self.features = q.detach()
        outputs.update(
            feature_std=health.feature_std(self.features),
            matched_fraction=(coverage > 0).float().mean(), mean_coverage=coverage.mean(),
            queue_filled=self.queue.filled_fraction(),
            concept_queue_filled=self.concepts.queue.filled_fraction())
        if self.training:
            self.queue.enqueue(distributed.all_gather(k))
            self.queue_dense.enqueue(distributed.all_gather(normalize(k_pooled)))
        return outputs
