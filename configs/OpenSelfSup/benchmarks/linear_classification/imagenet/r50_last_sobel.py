# The same of edges instead of colours.
_base_ = './r50_last.py'
model = dict(backbone=dict(
    _delete_=True, type='SobelBackbone',
    backbone=dict(type='ResNet', depth=50, in_channels=2, norm_cfg=dict(type='BN'),
                  frozen_stages=4)))
