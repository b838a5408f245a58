_base_ = './r18_bs1792_ep100.py'
model = dict(
    backbone=dict(depth=50),
    neck=dict(in_channels=2048, hid_channels=2048),
    group_neck=dict(in_channels=2048))
