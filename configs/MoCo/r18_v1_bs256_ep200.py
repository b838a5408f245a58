# MoCo v1 (arXiv 1911.05722): linear neck, T = 0.07, steps at 60 % and 80 % of the epochs,
# and neither blur nor the stronger jitter of v2.
_base_ = './r18_v2_bs256_ep200.py'
model = dict(
    neck=dict(_delete_=True, type='LinearNeck', in_channels=512, out_channels=128),
    temperature=0.07)
dataset = dict(
    recipe=dict(
        steps=dict(
            _delete_=True,
            crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
            gray=dict(type='Grayscale', p=0.2),
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4,
                        hue=0.4, p=1.0),
            flip=dict(type='HorizontalFlip', p=0.5))))
schedule = dict(_delete_=True, type='Step', milestones=(0.6, 0.8), gamma=0.1)
