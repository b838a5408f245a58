# DINO (arXiv 2104.14294) of a ResNet-50, as its authors train one.
model = dict(
    type='DINO',
    backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN')),
    head=dict(type='DINOHead', prototypes=60000, hidden=2048, bottleneck=256),
    teacher_momentum=0.996,
    teacher_temperature=0.04,
    targets='centering',
    freeze_last_layer=1)
