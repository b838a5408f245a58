# ConCL, concept contrastive learning (arXiv 2207.06733): as published, but each view's keys are
# pooled by its own concepts.
model = dict(
    type='ConCL',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN'), out_indices=(3, 4)),
    neck=dict(type='NonLinearNeck', hid_channels=512, out_channels=128),
    queue_len=16384,
    feat_dim=128,
    momentum=0.999,
    temperature=0.2,
    # concept_weight * concepts + (1 - concept_weight) * instances, after the first epochs.
    concept_weight=1.0,
    warmup_epochs=20,
    num_concepts=8,
    kmeans_iters=10,
    cluster_indice=3,
    label_maps='rounded',
    pad_queue=True,
    keys_in_order=True)
