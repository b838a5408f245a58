# Supervised training on NCT-CRC's labels; the list has 'path label' lines.
_base_ = [
    '../_base_/models/classification_r18.py',
    '../_base_/datasets/nct_crc_one_view.py',
    '../_base_/runtime.py',
]
model = dict(backbone=dict(norm_cfg=dict(type='SyncBN')))
optimizer = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)
schedule = dict(type='Step', milestones=(80,), gamma=0.1)
epochs = 100
global_batch_size = 256
