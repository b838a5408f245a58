_base_ = '../../../Classification/r18_bs256_ep100.py'
model = dict(
    backbone=dict(depth=50, norm_cfg=dict(type='SyncBN')),
    head=dict(num_classes=1000))
dataset = dict(source=dict(
    root='data/imagenet/train', list_file='data/imagenet/meta/train_labeled.txt'))
schedule = dict(milestones=(30, 60, 90))
epochs = 90
