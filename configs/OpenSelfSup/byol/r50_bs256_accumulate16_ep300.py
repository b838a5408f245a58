# The paper's batch of 4,096 on 8 GPUs: 16 passes of 256 tiles a step.
_base_ = './r50_bs256_ep200.py'
model = dict(
    backbone=dict(norm_cfg=dict(type='SyncBN')),
    neck=dict(
        _delete_=True, type='NonLinearNeckSimCLR', hid_channels=4096,
        out_channels=256, num_layers=2, with_bias=True, with_last_bn=False),
    head=dict(predictor=dict(
        _delete_=True, type='NonLinearNeckSimCLR', hid_channels=4096,
        out_channels=256, num_layers=2, with_bias=True, with_last_bn=False, with_avg_pool=False)),
    base_momentum=0.99)
optimizer = dict(lr=4.8, weight_decay=1e-6)
schedule = dict(warmup_epochs=10)
epochs = 300
global_batch_size = 4096
accumulate = 16
