_base_ = [
    '../_base_/models/ca2cl_r18_robust.py',
    '../_base_/datasets/nct_crc_strong_weak.py',
    '../_base_/schedules/adam_cosine_ep100.py',
    '../_base_/runtime.py',
]
