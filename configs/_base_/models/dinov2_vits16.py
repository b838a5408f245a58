# DINOv2 (arXiv 2304.07193) of a ViT-S/16, its short recipe: one head, learnt lengths.
model = dict(
    type='DINOv2',
    backbone=dict(type='TimmBackbone', model='vit_small_patch16_224', drop_path=0.3,
                  uniform_drop_path=True, init_values=1e-5),
    head=dict(type='DINOHead', prototypes=65536, hidden=2048, bottleneck=256, trained_norm=True),
    teacher_momentum=0.992,
    warmup_temperature=0.04,
    teacher_temperature=0.07,
    temperature_epochs=30,
    targets='sinkhorn',
    mask_share=0.5,
    mask_ratio=(0.1, 0.5),
    spread='koleo',
    spread_weight=0.1,
    freeze_last_layer=1)
