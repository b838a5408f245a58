# A linear classifier on a frozen backbone, which --pretrained names.
_base_ = '../../../classification/imagenet/r50.py'
model = dict(backbone=dict(norm_cfg=dict(type='BN'), frozen_stages=4))
optimizer = dict(lr=30.0, weight_decay=0.0)
schedule = dict(milestones=(60, 80))
epochs = 100
