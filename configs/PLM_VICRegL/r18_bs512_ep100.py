_base_ = [
    '../_base_/models/plm_vicregl_r18.py',
    '../_base_/datasets/nct_crc_vicregl.py',
    '../_base_/schedules/lars_cosine_ep100.py',
    '../_base_/runtime.py',
]
