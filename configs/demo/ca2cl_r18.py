# CA2CL in its robust form on the tiles that come with the project: a few minutes on a CPU.
from openselfsup import shipped
from openselfsup.views import strong_view, weak_view

_base_ = ['../_base_/models/ca2cl_r18_robust.py', '../_base_/runtime.py']

model = dict(cluster=dict(clusters=8))

# CA2CL's strong and weak views at 96 px; openselfsup/views/published.py lists their steps.
dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root=str(shipped.ROOT / 'data/demo'), labels=False),
    recipe=dict(strong=strong_view(size=96), weak=weak_view(size=96)))

optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
schedule = dict(type='Cosine', warmup_epochs=5)
epochs = 40
global_batch_size = 60
log_interval = 10
checkpoint_interval = 40
