_base_ = '../r18_bs256_ep200.py'
model = dict(
    backbone=dict(depth=50),
    neck=dict(hid_channels=2048))
