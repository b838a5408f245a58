# A few thousand tiles, one GPU or a laptop. Fewer negatives: each tile is drawn about once a step.
_base_ = [
    '../_base_/models/npid_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(neg_num=4096)
dataset = dict(n_views=1)
log_interval = 10
