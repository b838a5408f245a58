# ODC (arXiv 2006.10645): it starts from clusters of all tiles, which then change with every step.
# A config that replaces `hooks` has to repeat this one.
model = dict(
    type='ODC',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='NonLinearNeckV0', hid_channels=512, out_channels=256),
    head=dict(type='ClsHead', num_classes=1000),
    memory_momentum=0.5,
    min_cluster=20,
    centroids_update_interval=10,
    deal_with_small_clusters_interval=1,
    reweight=True)
hooks = [dict(type='ODCHook')]
