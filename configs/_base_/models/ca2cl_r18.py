# CA2CL, cluster-aware adversarial contrastive learning (JBHI 2025), as published.
model = dict(
    type='CA2CL',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='NonLinearNeck', hid_channels=512, out_channels=128),
    group_neck=dict(type='GroupNeck', out_channels=128),
    cluster=dict(
        type='ClusterHead',
        clusters=10,
        iters=10,
        temperature=0.2,
        weight=0.1,
        detach_centroids=False,
        empty='zero',
        init='first',
        mutual_information=False),
    adversary=dict(
        type='WeightAdversary',
        target='backbone.conv1.weight',
        epsilon=1.0,
        relative=False,
        norm='l2',
        bn='shared',
        detach_anchor=False),
    temperature=0.2)
# Redrawn at the end of each epoch: clusters.png and adversarial.png.
hooks = [dict(type='ClusterPictures'), dict(type='AdversaryPictures')]
