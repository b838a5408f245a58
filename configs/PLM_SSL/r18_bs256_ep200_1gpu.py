# One process: BatchNorm statistics would tell the encoder which views belong together, so
# they are taken over eighths of the batch, which the key view enters in another order.
_base_ = './r18_bs256_ep200.py'
model = dict(backbone=dict(norm_cfg=dict(type='SplitBN', num_splits=8)))
