# PLM on the tiles that come with the project, small enough for a few minutes on a CPU.
# What differs from the published recipe, and why: few tiles want a queue that does not hold
# an older view of the same tile; some hundred steps want keys that follow faster, milder
# colours, and a matching neck without its linear layer, which starts from random weights and
# has to become useful before matched cells attract each other; one process wants batch
# statistics over parts of the batch.
from openselfsup import shipped

_base_ = ['../_base_/models/plm_r18.py', '../_base_/runtime.py']

model = dict(
    backbone=dict(norm_cfg=dict(type='SplitBN', num_splits=2)),
    matching_neck=dict(linear=False),
    queue_len=64,
    momentum=0.95)

dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root=str(shipped.ROOT / 'data/demo'), labels=False),
    recipe=dict(
        type='ViewRecipe',
        size=96,
        steps=dict(
            crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
            hflip=dict(type='HorizontalFlip', p=0.5),
            vflip=dict(type='VerticalFlip', p=0.5),
            turn=dict(type='QuarterTurn', p=1.0),
            jitter=dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0.2,
                        hue=0.05, p=0.8),
            blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), p=0.2))),
    n_views=2)

optimizer = dict(type='AdamW', lr=3e-4, weight_decay=1e-4)
schedule = dict(type='Cosine', warmup_epochs=5)
epochs = 54
global_batch_size = 24
log_interval = 10
checkpoint_interval = 54
