# SimCLR (arXiv 2002.05709).
model = dict(
    type='SimCLR',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='NonLinearNeck', hid_channels=512, out_channels=128),
    temperature=0.2)
