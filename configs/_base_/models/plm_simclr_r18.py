# PLM + SimCLR, cells matched by place against the other tiles of the batch: ours.
model = dict(
    type='PLMSimCLR',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='DenseCLNeck', hid_channels=512, out_channels=128),
    matching_neck=dict(type='MatchingNeck', channels=128, linear=True),
    temperature=0.2,
    # The share of the dense loss: (1 - lambda) * instances + lambda * dense.
    loss_lambda=0.5,
    joint=True)
