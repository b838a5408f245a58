_base_ = './r18_bs1792_ep100.py'
model = dict(backbone=dict(depth=34))
