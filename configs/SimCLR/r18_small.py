# A few thousand tiles, one GPU or a laptop: negatives from a batch of 128 tiles.
_base_ = [
    '../_base_/models/simclr_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
global_batch_size = 128
log_interval = 10
