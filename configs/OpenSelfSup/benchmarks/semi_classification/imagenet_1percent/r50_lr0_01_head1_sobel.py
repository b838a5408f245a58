# Of edges instead of colours.
_base_ = './r50_lr0_01_head1.py'
model = dict(backbone=dict(
    _delete_=True, type='SobelBackbone',
    backbone=dict(type='ResNet', depth=50, in_channels=2, norm_cfg=dict(type='SyncBN'))))
