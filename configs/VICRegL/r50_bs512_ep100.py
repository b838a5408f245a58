_base_ = './r18_bs512_ep100.py'
model = dict(
    backbone=dict(depth=50))
