_base_ = [
    '../_base_/models/plm_concl_r18.py',
    '../_base_/datasets/nct_crc_reference.py',
    '../_base_/schedules/sgd_cosine_ep200.py',
    '../_base_/runtime.py',
]
