# A few thousand tiles, one GPU or a laptop: tens of tiles a cluster, and the colours.
_base_ = [
    '../_base_/models/deepcluster_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(head=dict(num_classes=100))
dataset = dict(n_views=1)
hooks = [dict(type='DeepClusterHook', interval=1, pca_dim=64)]
log_interval = 10
