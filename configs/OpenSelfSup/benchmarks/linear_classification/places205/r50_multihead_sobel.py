# The same of edges instead of colours.
_base_ = './r50_multihead.py'
model = dict(backbone=dict(
    _delete_=True, type='SobelBackbone',
    backbone=dict(type='ResNet', depth=50, in_channels=2, norm_cfg=dict(type='BN'),
                  out_indices=(0, 1, 2, 3, 4), frozen_stages=4)))
