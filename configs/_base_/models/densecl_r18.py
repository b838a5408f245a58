# DenseCL (arXiv 2011.09157).
model = dict(
    type='DenseCL',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='DenseCLNeck', hid_channels=512, out_channels=128),
    queue_len=16384,
    feat_dim=128,
    momentum=0.999,
    temperature=0.2,
    loss_lambda=0.5)
