# MoCo v2 (arXiv 2003.04297).
model = dict(
    type='MoCo',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='NonLinearNeck', hid_channels=512, out_channels=128),
    queue_len=16384,
    feat_dim=128,
    momentum=0.999,
    temperature=0.2)
