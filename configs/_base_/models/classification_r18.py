# A ResNet-18 and a linear classifier of the nine tissues of NCT-CRC.
model = dict(
    type='Classification',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    head=dict(type='ClsHead', num_classes=9, with_avg_pool=True))
