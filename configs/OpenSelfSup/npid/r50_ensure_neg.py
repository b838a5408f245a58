# NPID on ImageNet, 8 GPUs; a tile's own vector is none of its negatives.
_base_ = '../../NPID/r18_bs256_ep200.py'
model = dict(
    backbone=dict(depth=50, norm_cfg=dict(type='SyncBN')))
dataset = dict(source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train.txt'))
