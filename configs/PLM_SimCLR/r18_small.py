# A few thousand tiles, one GPU or a laptop, from random weights: PLM's matched cells without its
# queue, which hinders so short a run (docs/tried.md).
_base_ = [
    '../_base_/models/plm_simclr_r18.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
log_interval = 10
