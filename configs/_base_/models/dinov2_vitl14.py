# DINOv2 (arXiv 2304.07193) of a ViT-L/14, its long recipe: a head of its own for patches.
_base_ = './dinov2_vits16.py'
model = dict(
    backbone=dict(_delete_=True, type='TimmBackbone', model='vit_large_patch14_dinov2',
                  img_size=224, drop_path=0.4, uniform_drop_path=True, init_values=1e-5,
                  recompute=True),
    head=dict(prototypes=131072, bottleneck=384),
    patch_head=dict(type='DINOHead', prototypes=131072, hidden=2048, bottleneck=256,
                    trained_norm=True),
    teacher_momentum=0.994)
