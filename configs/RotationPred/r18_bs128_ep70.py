# Every tile in all four turns: 512 images a step.
_base_ = [
    '../_base_/models/rotation_r18.py',
    '../_base_/datasets/nct_crc_one_view.py',
    '../_base_/schedules/sgd_step_ep70.py',
    '../_base_/runtime.py',
]
