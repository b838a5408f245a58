# MoCo v1 on ImageNet, 8 GPUs.
_base_ = '../../MoCo/r18_v1_bs256_ep200.py'
model = dict(backbone=dict(depth=50), queue_len=65536)
dataset = dict(source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train.txt'))
