# ODC (arXiv 2006.10645) as OpenSelfSup trains it on ImageNet, on NCT-CRC: one view a tile, the rate
# falls to 0.4 of itself after 400 of 440 epochs. 1,000 clusters of about 100 tiles, where ImageNet
# has 10,000 of as many. An epoch shows each tile once; OpenSelfSup draws with replacement.
_base_ = [
    '../_base_/models/odc_r18.py',
    '../_base_/datasets/nct_crc_moco_v1.py',
    '../_base_/runtime.py',
]
dataset = dict(n_views=1)
optimizer = dict(type='SGD', lr=0.06, momentum=0.9, weight_decay=1e-5,
                 paramwise_options={r'\Ahead.': dict(momentum=0.)})
schedule = dict(type='Step', milestones=(400,), gamma=0.4)
epochs = 440
global_batch_size = 512
