# The same of a ResNet-50, with the published sizes of what its stages are pooled to.
_base_ = './r18_stages_bs256_ep28.py'
model = dict(
    backbone=dict(depth=50))
