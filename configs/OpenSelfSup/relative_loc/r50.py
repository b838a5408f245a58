# On ImageNet, 8 GPUs.
_base_ = '../../RelativeLoc/r18_bs512_ep70.py'
model = dict(
    backbone=dict(depth=50),
    neck=dict(out_channels=4096))
dataset = dict(source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train.txt'))
