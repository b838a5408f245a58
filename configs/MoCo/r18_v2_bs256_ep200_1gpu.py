# One process: see PLM_SSL/r18_bs256_ep200_1gpu.
_base_ = './r18_v2_bs256_ep200.py'
model = dict(backbone=dict(norm_cfg=dict(type='SplitBN', num_splits=8)))
