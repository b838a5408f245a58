_base_ = [
    '../_base_/models/dinov2_vits16.py',
    '../_base_/datasets/tiles_dinov2.py',
    '../_base_/schedules/adamw_dinov2_ep100.py',
    '../_base_/runtime.py',
]
