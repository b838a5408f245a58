# From released weights (--pretrained FILE) to better ones on your tiles, on one GPU; see
# docs/continue.md.
_base_ = [
    '../_base_/models/dinov2_vits14_continue.py',
    '../_base_/datasets/tiles_tissue_patch14.py',
    '../_base_/schedules/adamw_continue.py',
    '../_base_/runtime.py',
]
log_interval = 20
checkpoint_interval = 1
