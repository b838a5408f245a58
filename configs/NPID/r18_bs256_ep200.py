# NPID (arXiv 1805.01978) as OpenSelfSup trains it on ImageNet, on NCT-CRC: one view a tile, the
# rate falls to a tenth after 120 and 160 of 200 epochs.
_base_ = [
    '../_base_/models/npid_r18.py',
    '../_base_/datasets/nct_crc.py',
    '../_base_/schedules/sgd_cosine_ep200.py',
    '../_base_/runtime.py',
]
dataset = dict(
    recipe=dict(
        steps=dict(
            _delete_=True,
            crop=dict(type='RandomResizedCrop', scale=(0.2, 1.0)),
            gray=dict(type='Grayscale', p=0.2),
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4,
                        hue=0.4, p=1.0),
            flip=dict(type='HorizontalFlip', p=0.5))),
    n_views=1)
schedule = dict(_delete_=True, type='Step', milestones=(0.6, 0.8), gamma=0.1)
