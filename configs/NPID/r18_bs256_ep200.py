# NPID (arXiv 1805.01978) as OpenSelfSup trains it on ImageNet, on NCT-CRC: one view a tile.
_base_ = [
    '../_base_/models/npid_r18.py',
    '../_base_/datasets/nct_crc_moco_v1.py',
    '../_base_/schedules/sgd_step_ep200.py',
    '../_base_/runtime.py',
]
dataset = dict(n_views=1)
