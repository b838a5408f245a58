# DINO (arXiv 2104.14294) of a ViT-S/16.
model = dict(
    type='DINO',
    backbone=dict(type='TimmBackbone', model='vit_small_patch16_224', drop_path=0.1),
    head=dict(type='DINOHead', prototypes=65536, hidden=2048, bottleneck=256, trained_norm=True),
    teacher_momentum=0.996,
    teacher_temperature=0.04,
    targets='centering',
    freeze_last_layer=1)
