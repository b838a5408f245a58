# DINOv2 of a ViT-S/14 with registers that has learnt already; docs/continue.md explains each line.
model = dict(
    type='DINOv2',
    backbone=dict(type='TimmBackbone', model='vit_small_patch14_reg4_dinov2', drop_path=0.1),
    # Released weights come without heads: a batch of 128 tells hardly more prototypes apart.
    head=dict(type='DINOHead', prototypes=8192, hidden=2048, bottleneck=256, trained_norm=True),
    # The heads learn alone, then the backbone joins in slowly.
    heads_only_epochs=1,
    backbone_warmup_epochs=1,
    freeze_last_layer=0,
    teacher_momentum=0.994,
    warmup_temperature=0.04,
    teacher_temperature=0.07,
    temperature_epochs=3,
    targets='sinkhorn',
    # Equal tiles, such as blank ones, do not disturb it as they do KoLeo.
    spread='kde',
    spread_weight=0.05,
    concentration=5.0)
