_base_ = './r18_bs1792_ep100.py'
model = dict(
    backbone=dict(depth=50),
    neck=dict(hid_channels=2048))
