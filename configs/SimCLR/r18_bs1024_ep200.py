# SimCLR as OpenSelfSup's recipe for NCT-CRC: norms in the neck, both views in one batch.
_base_ = [
    '../_base_/models/simclr_r18.py',
    '../_base_/datasets/nct_crc.py',
    '../_base_/schedules/lars_cosine_ep200.py',
    '../_base_/runtime.py',
]
model = dict(
    backbone=dict(norm_cfg=dict(type='SyncBN')),
    neck=dict(_delete_=True, type='NonLinearNeckSimCLR', hid_channels=512,
              out_channels=128, num_layers=2),
    temperature=0.1,
    joint=True)
dataset = dict(recipe=dict(steps=dict(
    crop=dict(scale=(0.08, 1.0)),
    jitter=dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2))))
optimizer = dict(lr=0.6, weight_decay=1e-6)
schedule = dict(warmup_epochs=10)
