# Linear evaluation of every stage of a frozen ResNet-18: --pretrained names its checkpoint. Each
# stage has its own classifier (Goyal et al., arXiv 1905.01235): acc_stage0 ... acc_stage4.
_base_ = [
    '../_base_/models/classification_r18.py',
    '../_base_/datasets/nct_crc_one_view.py',
    '../_base_/runtime.py',
]
model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3, 4), frozen_stages=4),
    head=dict(_delete_=True, type='MultiClsHead', in_indices=(0, 1, 2, 3, 4), num_classes=9))
optimizer = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4, nesterov=True)
schedule = dict(type='Step', milestones=(7, 14, 21), gamma=0.1)
epochs = 28
global_batch_size = 256
