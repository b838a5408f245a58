# SimCLR on ImageNet, 8 GPUs.
_base_ = '../../SimCLR/r18_bs1024_ep200.py'
model = dict(
    backbone=dict(depth=50),
    neck=dict(hid_channels=2048))
dataset = dict(source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train.txt'))
optimizer = dict(lr=0.3)
global_batch_size = 256
