# On ImageNet, 8 GPUs.
_base_ = '../../RotationPred/r18_bs128_ep70.py'
model = dict(
    backbone=dict(depth=50, norm_cfg=dict(type='SyncBN')))
dataset = dict(source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train.txt'))
