# A linear classifier on each stage of a frozen backbone, which --pretrained names.
_base_ = '../../../../Classification/r50_stages_bs256_ep28.py'
model = dict(head=dict(num_classes=205, affine=False))
dataset = dict(
    source=dict(root='data/places205/train', list_file='data/places205/meta/train_labeled.txt'),
    recipe=dict(steps=dict(
        _delete_=True,
        center=dict(type='CenterCrop', share=1.0),
        crop=dict(type='RandomCrop', share=0.875),
        flip=dict(type='HorizontalFlip', p=0.5))))
