# CA2CL's run without clusters and adversary.
_base_ = [
    '../_base_/models/simclr_r18.py',
    '../_base_/datasets/nct_crc_strong_weak.py',
    '../_base_/schedules/adam_cosine_ep100.py',
    '../_base_/runtime.py',
]
