# A linear classifier on each stage of a frozen backbone, which --pretrained names.
_base_ = '../../../../Classification/r50_stages_bs256_ep28.py'
model = dict(head=dict(num_classes=1000, affine=False))
dataset = dict(
    source=dict(root='data/imagenet/train', list_file='data/imagenet/meta/train_labeled.txt'),
    recipe=dict(steps=dict(
        jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0),
        lighting=dict(type='Lighting'))))
schedule = dict(milestones=(30, 60, 90))
epochs = 90
