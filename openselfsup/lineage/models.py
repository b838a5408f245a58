"""Published models → ours, a function for each method."""

from collections.abc import Callable
from typing import Any

from ..errors import nearest
from .fields import Fields
from .parts import backbone, cls_head, neck, temperature, typed


def translate_model(fields: Fields) -> dict[str, Any]:
    """Return our ``model`` for a published one."""
    kind = fields.take('type', kind=str)
    if kind not in METHODS:
        raise fields.wrong(f"no published method is called '{kind}' (there are: "
                           + ', '.join(METHODS) + ')', nearest(str(kind), METHODS))
    name, translate = METHODS[kind]
    ours = dict(type=name, **translate(fields))
    fields.close()
    return ours


def _moco(fields: Fields) -> dict[str, Any]:
    return dict(backbone=backbone(fields), neck=neck(fields), **_queue(fields),
                temperature=temperature(fields))


def _densecl(fields: Fields) -> dict[str, Any]:
    return dict(_moco(fields), loss_lambda=fields.take('loss_lambda', 0.5))


def _plm(fields: Fields) -> dict[str, Any]:
    return dict(backbone=backbone(fields), neck=neck(fields),
                matching_neck=neck(fields, 'neck_matching'), **_queue(fields),
                temperature=temperature(fields, 'WeightedContrastiveHead'),
                loss_lambda=fields.take('loss_lambda', 0.5))


def _concl(fields: Fields) -> dict[str, Any]:
    below = backbone(fields)
    return dict(backbone=below, neck=neck(fields, pooled=False), **_queue(fields),
                temperature=temperature(fields), concept_weight=fields.take('concept_weight', 1.0),
                **_concepts(fields, below))


def _plm_concl(fields: Fields) -> dict[str, Any]:
    below = backbone(fields)
    return dict(backbone=below, neck=neck(fields), matching_neck=neck(fields, 'neck_matching'),
                **_queue(fields), temperature=temperature(fields, 'WeightedContrastiveHead'),
                concept_weight=fields.take('concept_weight', 0.5),
                dense_weight=fields.take('dense_weight', 0.5), **_concepts(fields, below))


def _concepts(fields: Fields, below: dict[str, Any]) -> dict[str, Any]:
    """Return what ConCL and PLM + ConCL say of their concepts, with the published defaults."""
    ours = dict(num_concepts=fields.take('num_concepts', 4),
                cluster_indice=_stage(fields, below.get('out_indices', [4])),
                warmup_epochs=None if fields.take('warmup', True, bool) else 0)
    fields.note('differs', 'concepts are pooled from the keys of their own tile; published pools '
                'those that shuffling put in its place (keys_in_order=False)', 'model')
    return ours


def _stage(fields: Fields, stages: list[int]) -> int:
    """Return the stage that is clustered: published counts its number from the last output."""
    place = fields.take('cluster_indice', 3, int) - 5
    if not -len(stages) <= place < 0:
        valid = ', '.join(str(5 - i) for i in range(len(stages), 0, -1))
        fields.mistake('cluster_indice', f'cluster_indice={place + 5} is output {place} of a '
                       f'backbone that returns {len(stages)} (out_indices={stages}): the published '
                       f'trainer fails there once the warm-up is over; expected {valid}')
        return stages[-1]
    return stages[place]


def _simclr(fields: Fields) -> dict[str, Any]:
    return dict(backbone=backbone(fields), neck=neck(fields), temperature=temperature(fields),
                joint=True)


def _byol(fields: Fields) -> dict[str, Any]:
    fields.ignore('nothing reads it', 'pre_conv')
    ours = dict(backbone=backbone(fields), neck=neck(fields),
                base_momentum=fields.take('base_momentum', 0.996))
    head = typed(fields.part('head'), 'LatentPredictHead')
    head.only('size_average', True, 'the loss is the mean over the batch here')
    ours['head'] = dict(type='LatentPredictHead', predictor=neck(head, 'predictor', vectors=True))
    head.close()
    return ours


def _npid(fields: Fields) -> dict[str, Any]:
    ours = dict(backbone=backbone(fields), neck=neck(fields), temperature=temperature(fields),
                neg_num=fields.take('neg_num', 65536), ensure_neg=fields.take('ensure_neg', False))
    memory = typed(fields.part('memory_bank'), 'SimpleMemory')
    ours.update(feat_dim=memory.take('feat_dim'), memory_momentum=memory.take('momentum'))
    memory.ignore('there is a vector for each tile of the data set', 'length')
    memory.close()
    if not ours['ensure_neg']:
        fields.note('kept', "a tile's own vector may be one of its negatives, as published",
                    'model.ensure_neg', key='ensure_neg')
    return ours


def _classification(fields: Fields) -> dict[str, Any]:
    sobel = fields.take('with_sobel', False, bool)
    return dict(backbone=backbone(fields, sobel), head=cls_head(fields))


def _rotation(fields: Fields) -> dict[str, Any]:
    return dict(backbone=backbone(fields), head=cls_head(fields))


def _relative_loc(fields: Fields) -> dict[str, Any]:
    return dict(backbone=backbone(fields), neck=neck(fields), head=cls_head(fields))


def _deepcluster(fields: Fields) -> dict[str, Any]:
    typed(fields.part('neck'), 'AvgPoolNeck').close()  # maps are pooled here without being told
    return _classification(fields)


def _odc(fields: Fields) -> dict[str, Any]:
    sobel = fields.take('with_sobel', False, bool)
    ours = dict(backbone=backbone(fields, sobel), neck=neck(fields), head=cls_head(fields))
    memory = typed(fields.part('memory_bank'), 'ODCMemory')
    ours.update(memory_momentum=memory.take('momentum'), min_cluster=memory.take('min_cluster'))
    memory.only('feat_dim', ours['neck']['out_channels'], 'the memory holds what the neck returns')
    memory.only('num_classes', ours['head']['num_classes'], 'the head has the classes of the '
                'memory')
    memory.ignore('there is a vector for each tile of the data set', 'length')
    memory.ignore('nothing reads it', 'debug')
    memory.close()
    return ours


METHODS: dict[str, tuple[str, Callable[[Fields], dict[str, Any]]]] = {
    'MOCO': ('MoCo', _moco), 'DenseCL': ('DenseCL', _densecl), 'LocMatCL': ('PLM', _plm),
    'ConCL': ('ConCL', _concl), 'ConCLLoc': ('PLMConCL', _plm_concl),
    'SimCLR': ('SimCLR', _simclr), 'BYOL': ('BYOL', _byol),
    'NPID': ('NPID', _npid), 'Classification': ('Classification', _classification),
    'DeepCluster': ('DeepCluster', _deepcluster), 'ODC': ('ODC', _odc),
    'RotationPred': ('RotationPred', _rotation), 'RelativeLoc': ('RelativeLoc', _relative_loc)}


def _queue(fields: Fields) -> dict[str, Any]:
    """Return the settings of momentum contrast, with the published defaults."""
    return dict(queue_len=fields.take('queue_len', 65536), feat_dim=fields.take('feat_dim', 128),
                momentum=fields.take('momentum', 0.999))
