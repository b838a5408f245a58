# A few thousand tiles, one GPU or a laptop, chosen by measuring (docs/learning.md): many steps of
# small views and a small batch. Evaluate at about 80 px.
_base_ = [
    '../_base_/models/simclr_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
dataset = dict(recipe=dict(size=64))
optimizer = dict(lr=1e-3)
schedule = dict(warmup_epochs=1)
epochs = 80  # of 1,500 tiles; twice the steps of 40 gained in every column
log_interval = 10
