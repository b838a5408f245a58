# RotationPred (arXiv 1803.07728): which of four quarter turns.
model = dict(
    type='RotationPred',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    head=dict(type='ClsHead', num_classes=4, with_avg_pool=True))
