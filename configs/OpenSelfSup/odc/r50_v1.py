# ODC on ImageNet, 8 GPUs. An epoch shows each tile once; published draws with replacement.
_base_ = '../../ODC/r18_bs512_ep440.py'
model = dict(
    backbone=dict(depth=50, norm_cfg=dict(type='SyncBN')),
    head=dict(num_classes=10000))
dataset = dict(
    source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train.txt'),
    recipe=dict(steps=dict(
        _delete_=True,
        crop=dict(type='RandomResizedCrop', scale=(0.08, 1.0)),
        flip=dict(type='HorizontalFlip', p=0.5),
        rotation=dict(type='ShiftScaleRotate', shift=0.0, scale=0.0, degrees=2, p=1.0),
        jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=1.0, hue=0.5),
        gray=dict(type='Grayscale', p=0.2))))
hooks = [dict(type='ODCHook', resize=256, size=224, batch_size=128)]
