# RelativeLoc (arXiv 1505.05192): on which of eight sides of the middle a patch lies.
model = dict(
    type='RelativeLoc',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='RelativeLocNeck', out_channels=4096),
    head=dict(type='ClsHead', num_classes=8),
    # Cells of 255 px have 85 px and patches 64, at a place drawn anew each time.
    gap=21)
