# A few thousand tiles, one GPU or a laptop: eight pairs of 40 px patches of every tile.
_base_ = [
    '../_base_/models/relative_loc_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(neck=dict(out_channels=512), gap=13)
dataset = dict(n_views=1, recipe=dict(size=159, steps=dict(hflip=None, vflip=None, turn=None)))
log_interval = 10
