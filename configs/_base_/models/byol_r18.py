# BYOL (arXiv 2006.07733) with OpenSelfSup's projector and predictor.
model = dict(
    type='BYOL',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='NonLinearNeckV2', hid_channels=512, out_channels=256),
    head=dict(
        type='LatentPredictHead',
        predictor=dict(type='NonLinearNeckV2', hid_channels=512,
                       out_channels=256, with_avg_pool=False)),
    base_momentum=0.996)
