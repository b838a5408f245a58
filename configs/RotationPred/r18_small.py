# A few thousand tiles, one GPU or a laptop: every tile in all four turns, 256 images a step.
_base_ = [
    '../_base_/models/rotation_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
dataset = dict(n_views=1, recipe=dict(steps=dict(hflip=None, vflip=None, turn=None)))
log_interval = 10
