# The tiles of NCT-CRC, two views of each by the augmentation of NPID (arXiv 1805.01978) and
# MoCo v1: neither blur nor the stronger jitter of v2.
_base_ = './nct_crc.py'
dataset = dict(
    recipe=dict(
        steps=dict(
            _delete_=True,
            crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
            gray=dict(type='Grayscale', p=0.2),
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4,
                        hue=0.4, p=1.0),
            flip=dict(type='HorizontalFlip', p=0.5))))
