# PLM with ConCL (arXiv 2212.12105, 2207.06733): where cells lie and what looks alike. No published
# config exists; the weights are the published code's defaults, with which the instance loss is
# gone after the first epochs.
model = dict(
    type='PLMConCL',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN'), out_indices=(3, 4)),
    neck=dict(type='DenseCLNeck', hid_channels=512, out_channels=128),
    matching_neck=dict(type='MatchingNeck', channels=128, linear=True),
    queue_len=16384,
    feat_dim=128,
    momentum=0.999,
    temperature=0.2,
    # concept_weight * concepts + dense_weight * cells + the rest * instances.
    concept_weight=0.5,
    dense_weight=0.5,
    warmup_epochs=20,
    num_concepts=8,
    kmeans_iters=10,
    cluster_indice=3,
    label_maps='rounded',
    pad_queue=True,
    keys_in_order=True)
