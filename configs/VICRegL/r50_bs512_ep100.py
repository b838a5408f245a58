_base_ = './r18_bs512_ep100.py'
model = dict(
    backbone=dict(depth=50),
    projector=dict(in_channels=2048),
    maps_projector=dict(in_channels=2048))
