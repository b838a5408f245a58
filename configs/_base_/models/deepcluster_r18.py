# DeepCluster (arXiv 1807.05520): before training and after each epoch, the whitened features of all
# tiles are clustered; the classifier, begun anew, learns the clusters. A config that replaces
# `hooks` has to repeat this one.
model = dict(
    type='DeepCluster',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    head=dict(type='ClsHead', num_classes=1000),
    reweight=False)
hooks = [dict(type='DeepClusterHook', interval=1, pca_dim=256, uniform_sampling=True)]
