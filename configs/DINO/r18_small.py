# A few thousand tiles, one GPU or a laptop: two crops of 96 px and four of 48.
from openselfsup.views import tissue_views

_base_ = [
    '../_base_/models/dino_r50.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(
    backbone=dict(depth=18),
    head=dict(prototypes=1024, hidden=512, bottleneck=128),
    teacher_momentum=0.99)
dataset = dict(n_views=None, recipe=dict(_delete_=True, **tissue_views(
    size=96, scale=(0.3, 1.0), local_views=4, local_size=48, local_scale=(0.05, 0.3),
    blur='written')))
clip_grad = 3.0
log_interval = 10
