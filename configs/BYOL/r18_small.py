# A few thousand tiles, one GPU or a laptop: a target that follows sooner, as runs are short.
_base_ = [
    '../_base_/models/byol_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(base_momentum=0.99)
log_interval = 10
