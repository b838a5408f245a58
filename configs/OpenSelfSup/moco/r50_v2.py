# MoCo v2 on ImageNet, 8 GPUs.
_base_ = '../../MoCo/r18_v2_bs256_ep200.py'
model = dict(
    backbone=dict(depth=50),
    neck=dict(hid_channels=2048),
    queue_len=65536)
dataset = dict(source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train.txt'))
