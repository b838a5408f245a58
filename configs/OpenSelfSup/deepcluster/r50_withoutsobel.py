_base_ = './r50.py'
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=50, norm_cfg=dict(type='BN')))
optimizer = dict(lr=0.3)
