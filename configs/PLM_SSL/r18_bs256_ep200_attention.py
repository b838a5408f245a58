# Softmax attention over the overlapping cells instead of their areas.
_base_ = './r18_bs256_ep200.py'
model = dict(
    matching_neck=dict(_delete_=True, type='AttentionMatchingNeck', channels=128,
                       mid_channels=64))
