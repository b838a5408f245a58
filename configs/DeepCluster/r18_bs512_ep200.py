# DeepCluster (arXiv 1807.05520) as OpenSelfSup trains it on ImageNet, on NCT-CRC: one view a tile,
# edges instead of colours, a constant rate. 1,000 clusters of about 100 tiles, where ImageNet has
# 10,000 of as many.
_base_ = [
    '../_base_/models/deepcluster_r18.py',
    '../_base_/datasets/nct_crc_one_view.py',
    '../_base_/runtime.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='SobelBackbone',
        backbone=dict(type='ResNet', depth=18, in_channels=2, norm_cfg=dict(type='BN'))))
dataset = dict(recipe=dict(steps=dict(
    jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=1.0, hue=0.5, p=1.0),
    gray=dict(type='Grayscale', p=0.2))))
optimizer = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-5,
                 paramwise_options={r'\Ahead.': dict(momentum=0.)})
schedule = dict(type='Constant')
epochs = 200
global_batch_size = 512
