# SimCLR on the views and the schedule of MoCo v2, PLM and DenseCL.
_base_ = [
    '../_base_/models/simclr_r18.py',
    '../_base_/datasets/nct_crc.py',
    '../_base_/schedules/sgd_cosine_ep200.py',
    '../_base_/runtime.py',
]
