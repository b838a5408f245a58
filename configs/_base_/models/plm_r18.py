# PLM, precise location matching (arXiv 2212.12105).
model = dict(
    type='PLM',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='DenseCLNeck', hid_channels=512, out_channels=128),
    matching_neck=dict(type='MatchingNeck', channels=128, linear=True),
    queue_len=16384,
    feat_dim=128,
    momentum=0.999,
    temperature=0.2,
    # The share of the dense loss: (1 - lambda) * global + lambda * dense.
    loss_lambda=0.5)
