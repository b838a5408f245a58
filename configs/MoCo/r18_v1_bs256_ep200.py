# MoCo v1 (arXiv 1911.05722): linear neck, T = 0.07.
_base_ = [
    '../_base_/models/moco_v2_r18.py',
    '../_base_/datasets/nct_crc_moco_v1.py',
    '../_base_/schedules/sgd_step_ep200.py',
    '../_base_/runtime.py',
]
model = dict(
    neck=dict(_delete_=True, type='LinearNeck', out_channels=128),
    temperature=0.07)
