# A few thousand tiles, one GPU or a laptop: tens of tiles a cluster.
_base_ = [
    '../_base_/models/odc_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(head=dict(num_classes=50), min_cluster=10)
dataset = dict(n_views=1)
log_interval = 10
