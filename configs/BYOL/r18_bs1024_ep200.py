# BYOL as OpenSelfSup's recipe for NCT-CRC; its two views are those that VICRegL took over.
_base_ = [
    '../_base_/models/byol_r18.py',
    '../_base_/datasets/nct_crc_vicregl.py',
    '../_base_/schedules/lars_cosine_ep200.py',
    '../_base_/runtime.py',
]
model = dict(backbone=dict(norm_cfg=dict(type='SyncBN')))
