# A few thousand tiles, one GPU or a laptop, from random weights: the robust preset, a batch of 128.
from openselfsup.views import strong_view, weak_view

_base_ = [
    '../_base_/models/ca2cl_r18_robust.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root='data/tiles', labels=False),
    recipe=dict(strong=strong_view(size=96), weak=weak_view(size=96)),
    on_corrupt='skip')
global_batch_size = 128
log_interval = 10
