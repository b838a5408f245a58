# NPID (arXiv 1805.01978). The memory has one vector for each tile of the data set; neg_num of them
# are drawn for each tile of a batch.
model = dict(
    type='NPID',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    neck=dict(type='LinearNeck', out_channels=128),
    feat_dim=128,
    neg_num=65536,
    memory_momentum=0.5,
    temperature=0.07,
    ensure_neg=True)
