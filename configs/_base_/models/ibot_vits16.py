# iBOT (arXiv 2111.07832) of a ViT-S/16: one head for class tokens and patches.
model = dict(
    type='iBOT',
    backbone=dict(type='TimmBackbone', model='vit_small_patch16_224', drop_path=0.1),
    head=dict(type='DINOHead', prototypes=8192, hidden=2048, bottleneck=256, trained_norm=True),
    teacher_momentum=0.996,
    warmup_temperature=0.04,
    teacher_temperature=0.07,
    temperature_epochs=30,
    targets='centering',
    # Half of the crops are masked, by 10 to 50 % of their patches.
    mask_share=0.5,
    mask_ratio=(0.1, 0.5),
    freeze_last_layer=1)
