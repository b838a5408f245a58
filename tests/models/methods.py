"""Every method at toy size: the one table that the tests of all methods run over.

A method is one row of METHODS; one that is registered and not in it fails
test_every_method.py. What holds for all of them is tested there (among it precision and resuming),
in test_two_ranks.py and in tests/test_no_synchronisation.py, for every row and for the options in
CASES that change what is computed.
"""

from toy_model import CLASSES, TILES, StagedBackbone, ToyBackbone, ToyViT

from openselfsup.registry import ALGORITHMS, BACKBONES

for toy_backbone in ToyBackbone, StagedBackbone, ToyViT:
    BACKBONES.register_module(module=toy_backbone, force=True)

POOLED = dict(type='NonLinearNeck', in_channels=24, hid_channels=24, out_channels=16)
DENSE = dict(type='DenseCLNeck', in_channels=24, hid_channels=24, out_channels=16)
QUEUE = dict(queue_len=64, feat_dim=16, momentum=0.99)
# Norms over the rows of all ranks; no dropout, which ranks would draw otherwise than one process.
PREDICTED = dict(type='NonLinearNeckV2', in_channels=24, hid_channels=24, out_channels=24)
CLASSES_OF = dict(type='ClsHead', in_channels=24, with_avg_pool=True)
GROUP = dict(type='GroupNeck', in_channels=24, out_channels=16)
# More clusters than a rank of two has tiles.
CLUSTER, ATTACK = dict(type='ClusterHead', clusters=6), dict(type='WeightAdversary')
CLUSTERS = dict(group_neck=GROUP, cluster=CLUSTER)
EXPANDER = dict(type='Expander', in_channels=24, channels=(24, 24, 16))
EXPANDERS = dict(projector=EXPANDER, maps_projector=EXPANDER)
HEAD = dict(type='DINOHead', prototypes=32, hidden=24, bottleneck=12)
# Blocks that are shared out one by one.
BLOCKS = dict(type='TimmBackbone', model='vit_tiny_patch16_224', img_size=56, patch_size=8,
              embed_dim=24, depth=2, num_heads=2)
VIT = dict(backbone=dict(type='ToyViT'), head=HEAD)
CELLS = dict(matched=dict(type='MatchedPatches', rows=8, local_rows=3),
             alignment=dict(type='KernelAlignment'),
             gram=dict(type='GramAnchoring', start=0.5, refresh=0.5))
CONCEPTS = dict(backbone=dict(type='StagedBackbone'), warmup_epochs=0, num_concepts=4)

METHODS = {
    'MoCo': dict(type='MoCo', neck=POOLED, **QUEUE),
    'DenseCL': dict(type='DenseCL', neck=DENSE, loss_lambda=0.5, **QUEUE),
    'PLM': dict(type='PLM', neck=DENSE, loss_lambda=0.5, **QUEUE,
                matching_neck=dict(type='MatchingNeck', channels=16)),
    'ConCL': dict(type='ConCL', neck=POOLED, **QUEUE, **CONCEPTS, concept_weight=0.7),
    'PLMConCL': dict(type='PLMConCL', neck=DENSE, **QUEUE, **CONCEPTS, concept_weight=0.4,
                     dense_weight=0.3, matching_neck=dict(type='MatchingNeck', channels=16)),
    'SimCLR': dict(type='SimCLR', neck=POOLED),
    'BYOL': dict(type='BYOL', neck=PREDICTED, base_momentum=0.9, head=dict(
        type='LatentPredictHead', predictor=dict(PREDICTED, with_avg_pool=False))),
    'Classification': dict(type='Classification', head=dict(CLASSES_OF, num_classes=len(CLASSES))),
    'RotationPred': dict(type='RotationPred', head=dict(CLASSES_OF, num_classes=4)),
    'RelativeLoc': dict(
        type='RelativeLoc', gap=4, head=dict(type='ClsHead', in_channels=16, num_classes=8),
        neck=dict(type='RelativeLocNeck', in_channels=24, out_channels=16, dropout=0.)),
    'ODC': dict(type='ODC', neck=dict(type='NonLinearNeckV0', in_channels=24, hid_channels=20,
                                      out_channels=16, dropout=0.),
                head=dict(type='ClsHead', in_channels=16, num_classes=3), min_cluster=4,
                centroids_update_interval=2),
    'DeepCluster': dict(type='DeepCluster',
                        head=dict(type='ClsHead', in_channels=24, num_classes=3)),
    'NPID': dict(type='NPID', neck=POOLED, feat_dim=16, neg_num=12),
    'CA2CL': dict(type='CA2CL', neck=POOLED, **CLUSTERS, adversary=ATTACK),
    'VICRegL': dict(type='VICRegL', **EXPANDERS),
    'PLMVICRegL': dict(type='PLMVICRegL', **EXPANDERS,
                       matching_neck=dict(type='MatchingNeck', channels=16)),
    'PLMSimCLR': dict(type='PLMSimCLR', neck=DENSE,
                      matching_neck=dict(type='MatchingNeck', channels=16)),
    'DINO': dict(type='DINO', head=HEAD),
    'iBOT': dict(type='iBOT', **VIT),
    'DINOv2': dict(type='DINOv2', **VIT, patch_head=HEAD),
}


def with_options(name: str, **options) -> dict:
    """Return the row of a method with other options; a dict of options joins the one there."""
    row = dict(METHODS[name])
    for key, value in options.items():
        joins = isinstance(value, dict) and 'type' not in value
        row[key] = {**row.get(key, {}), **value} if joins else value
    return row


ATTENTION = dict(matching_neck=dict(type='AttentionMatchingNeck', channels=16, mid_channels=8))
NOT_LINEAR = dict(matching_neck=dict(linear=False))
CASES = METHODS | {
    'MoCo, shuffled': with_options('MoCo', shuffle=True),
    'MoCo, the queue wraps': with_options('MoCo', queue_len=12),
    'DenseCL, shuffled': with_options('DenseCL', shuffle=True),
    'DenseCL, lambda 0': with_options('DenseCL', loss_lambda=0.),
    'PLM, shuffled': with_options('PLM', shuffle=True),
    'PLM, weighted mean': with_options('PLM', dense_reduction='weighted_mean', loss_lambda=0.75),
    'PLM, attention, weighted mean': with_options(
        'PLM', **ATTENTION, dense_reduction='weighted_mean', loss_lambda=1.),
    'PLM, lambda 0': with_options('PLM', loss_lambda=0.),
    'PLM, lambda 1': with_options('PLM', loss_lambda=1.),
    'PLM, not linear': with_options('PLM', **NOT_LINEAR),
    'PLM, not linear, lambda 0': with_options('PLM', **NOT_LINEAR, loss_lambda=0.),
    'ConCL, warming up': with_options('ConCL', warmup_epochs=1),
    'ConCL, concepts alone': with_options('ConCL', concept_weight=1., num_concepts=9),
    'ConCL, reference': with_options('ConCL', keys_in_order=False),
    'ConCL, robust': with_options('ConCL', label_maps='exact', pad_queue=False, shuffle=True),
    'SimCLR, joint, with norms': with_options(
        'SimCLR', joint=True, temperature=0.5, neck=dict(
            type='NonLinearNeckSimCLR', in_channels=24, hid_channels=24, out_channels=16)),
    'Classification, stages': dict(type='Classification', head=dict(
        type='MultiClsHead', in_channels=[24], num_classes=len(CLASSES))),
    'PLMConCL, warming up': with_options('PLMConCL', warmup_epochs=1),
    'PLMConCL, robust': with_options('PLMConCL', label_maps='exact', pad_queue=False, shuffle=True,
                                     dense_reduction='weighted_mean', dense_weight=0.6),
    'SimCLR, adversary': with_options('SimCLR', adversary=ATTACK),
    'CA2CL, robust': with_options(
        'CA2CL', cluster=dict(detach_centroids=True, empty='mask'),
        adversary=dict(epsilon=0.1, relative=True, bn='frozen')),
    'CA2CL, every option': with_options(
        'CA2CL', cluster=dict(mutual_information=True, empty='resplit', init='kmeans++'),
        adversary=dict(norm='linf', epsilon=0.01, detach_anchor=True,
                       target='backbone.conv2.weight')),
    'DeepCluster, weighted': with_options('DeepCluster', reweight=True),
    'ODC, not weighted': with_options('ODC', reweight=False),
    'NPID, own vectors too': with_options('NPID', ensure_neg=False, neg_num=1),
    'MoCo, clusters': with_options('MoCo', **CLUSTERS),
    'MoCo, adversary': with_options('MoCo', adversary=ATTACK),
    'MoCo, both, shuffled': with_options('MoCo', **CLUSTERS, adversary=ATTACK, shuffle=True),
    'PLM, clusters': with_options('PLM', **CLUSTERS),
    'PLM, adversary': with_options('PLM', adversary=ATTACK),
    'PLM, both': with_options('PLM', group_neck=GROUP, adversary=ATTACK,
                              cluster=dict(CLUSTER, mutual_information=True)),
    'VICRegL, limited matches': with_options(
        'VICRegL', l2_all_matches=False, num_matches=(9, 3), match_radius=0.7,
        projector=dict(norm='LN'), maps_projector=dict(norm='LN')),
    'PLMVICRegL, attention': with_options(
        'PLMVICRegL', matching_neck=dict(type='AttentionMatchingNeck', channels=16,
                                         mid_channels=8)),
    'PLMSimCLR, joint, attention': with_options('PLMSimCLR', **ATTENTION, joint=True),
    'PLMSimCLR, lambda 0': with_options('PLMSimCLR', loss_lambda=0.),
    'PLMSimCLR, lambda 1': with_options('PLMSimCLR', loss_lambda=1.),
    'PLMSimCLR, adversary': with_options('PLMSimCLR', adversary=ATTACK),
    'VICRegL, classifier': with_options('VICRegL', num_classes=3),
    'DINO, cells': with_options('DINO', **CELLS, targets='sinkhorn'),
    'DINO, distributions of cells': with_options(
        'DINO', matched=dict(type='MatchedPatches', rows=5, mix='distributions')),
    'iBOT, every crop masked': with_options('iBOT', mask_share=1., exact_masks=True, matched=dict(
        type='MatchedPatches', rows=9, cells='masked', min_coverage=0.)),
    'DINOv2, every option': with_options(
        'DINOv2', **CELLS, patch_head=None, targets='centering', spread='kde',
        head=dict(trained_norm=True), heads_only_epochs=0.5, backbone_warmup_epochs=0.5),
    'DINOv2, blocks': with_options('DINOv2', **CELLS, backbone=BLOCKS),
    'VICRegL, whole views only': with_options('VICRegL', alpha=1.),
}


def build(row: dict, norm=None):
    """Build a method from its row, a toy backbone with a norm layer if one is given."""
    backbone = row.get('backbone', dict(type='ToyBackbone'))
    if norm is not None and backbone['type'] != 'TimmBackbone':
        backbone = dict(backbone, norm=norm)
    method = ALGORITHMS.build(row | dict(backbone=backbone))
    method.set_data(TILES, CLASSES)
    return method


def toy(name: str, norm=None, cluster=None, adversary=None, clusters=6, attention=False,
        linear=True, **arguments):
    """Build a method with the parts that are given as dicts of their settings, and no others."""
    row = {key: value for key, value in METHODS[name].items()
           if key not in ('group_neck', 'cluster', 'adversary')}
    if cluster is not None:
        row |= dict(group_neck=GROUP, cluster=dict(CLUSTER, clusters=clusters, **cluster))
    if adversary is not None:
        row['adversary'] = dict(ATTACK, **adversary)
    if name == 'PLM':
        row |= ATTENTION if attention else dict(matching_neck=dict(row['matching_neck'],
                                                                   linear=linear))
    return build(row | arguments, norm)
