# A few thousand tiles, one GPU or a laptop, as MoCo/r18_small.py: a short queue, batch statistics
# over parts of the batch. The reference is larger than the views, so that its stage 3 has 12 x 12
# cells, and crops are not rounded to these.
_base_ = [
    '../_base_/models/concl_r18_robust.py',
    '../_base_/schedules/adamw_small.py',
    '../_base_/runtime.py',
]
model = dict(
    backbone=dict(norm_cfg=dict(type='SplitBN', num_splits=4)),
    queue_len=512,
    momentum=0.99,
    warmup_epochs=4,
    num_concepts=4)
dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root='data/tiles', labels=False),
    recipe=dict(
        **{name: dict(
            type='ViewRecipe',
            size=96,
            steps=dict(
                crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
                hflip=dict(type='HorizontalFlip', p=0.5),
                vflip=dict(type='VerticalFlip', p=0.5),
                turn=dict(type='QuarterTurn', p=1.0),
                jitter=dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0.2,
                            hue=0.02, p=0.8)))
           for name in ('query', 'key')},
        reference=dict(type='UnionView', of=['query', 'key'], size=192)),
    on_corrupt='skip')
log_interval = 10
