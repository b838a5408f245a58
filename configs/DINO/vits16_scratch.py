_base_ = [
    '../_base_/models/dino_vits16.py',
    '../_base_/datasets/tiles_dino.py',
    '../_base_/schedules/adamw_dino_ep100.py',
    '../_base_/runtime.py',
]
