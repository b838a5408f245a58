# PLM on the tiles that come with the project, small enough for a few minutes on a CPU.
_base_ = ['../_base_/models/plm_r18.py', '../_base_/runtime.py']

model = dict(
    backbone=dict(norm_cfg=dict(type='SplitBN', num_splits=8)),
    queue_len=512,
    momentum=0.99)

dataset = dict(
    type='TileDataset',
    source=dict(type='ImageFolder', root='data/demo', labels=False),
    recipe=dict(
        type='ViewRecipe',
        size=96,
        steps=dict(
            crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
            hflip=dict(type='HorizontalFlip', p=0.5),
            vflip=dict(type='VerticalFlip', p=0.5),
            turn=dict(type='QuarterTurn', p=1.0),
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4,
                        hue=0.1, p=0.8),
            gray=dict(type='Grayscale', p=0.2),
            blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), p=0.5))),
    n_views=2)

optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
schedule = dict(type='Cosine', warmup_epochs=5)
epochs = 100
global_batch_size = 64
log_interval = 10
checkpoint_interval = 50
