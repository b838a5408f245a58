_base_ = '../../../Classification/r18_bs256_ep100.py'
model = dict(
    backbone=dict(depth=50, norm_cfg=dict(type='BN')),
    head=dict(num_classes=10))
dataset = dict(
    source=dict(_delete_=True, type='Cifar10', root='data/cifar/'),
    recipe=dict(
        size=32,
        steps=dict(
            _delete_=True,
            crop=dict(type='RandomCrop', share=1.0, padding=0.125),
            flip=dict(type='HorizontalFlip', p=0.5))))
normalize = dict(mean=[0.4914, 0.4822, 0.4465], std=[0.2023, 0.1994, 0.201])
optimizer = dict(weight_decay=5e-4)
schedule = dict(milestones=(150, 250))
epochs = 350
global_batch_size = 128
