# The published settings for ResNets: SGD with a warm-up, smaller local crops, batch norm
# synchronised in student and teacher.
from openselfsup.views import dino_views

_base_ = [
    '../_base_/models/dino_r50.py',
    '../_base_/datasets/tiles_dino.py',
    '../_base_/schedules/sgd_cosine_ep200.py',
    '../_base_/runtime.py',
]
model = dict(backbone=dict(norm_cfg=dict(type='SyncBN')))
dataset = dict(recipe=dict(_delete_=True, **dino_views(
    size=224, scale=(0.14, 1.0), local_views=6, local_size=96,
    local_scale=(0.05, 0.14), blur='written')))
optimizer = dict(lr=0.03, weight_decay=1e-4)
schedule = dict(warmup_epochs=10, warmup_start=0.0, warmup='inclusive', min_lr=1e-6)
epochs = 100
base_batch_size = 256
