# BYOL on ImageNet, 8 GPUs.
_base_ = '../../BYOL/r18_bs1024_ep200.py'
model = dict(
    backbone=dict(depth=50, norm_cfg=dict(type='BN')),
    neck=dict(hid_channels=4096),
    head=dict(predictor=dict(hid_channels=4096)))
dataset = dict(source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train.txt'))
global_batch_size = 256
