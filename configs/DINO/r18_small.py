# A few thousand tiles, one GPU or a laptop: two crops of 64 px and four of 32. The teacher is sharp
# and follows fast: at .04, centred and with momentum .99 the loss stays at ln K (docs/tried.md).
from openselfsup.views import tissue_views

_base_ = [
    '../_base_/models/dino_r50.py',
    '../_base_/datasets/small_tiles.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(
    backbone=dict(depth=18),
    head=dict(prototypes=1024, hidden=512, bottleneck=128),
    teacher_temperature=0.02,
    teacher_momentum=0.9,
    final_momentum=0.99,
    targets='sinkhorn')
dataset = dict(n_views=None, recipe=dict(_delete_=True, **tissue_views(
    size=64, scale=(0.3, 1.0), local_views=4, local_size=32, local_scale=(0.05, 0.3),
    blur='written')))
optimizer = dict(lr=1e-3)
schedule = dict(warmup_epochs=1)
clip_grad = 3.0
log_interval = 10
